//! Who is measured.

/// One kind of worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contender {
    FloorSingle,
    FloorCoalesced,
    Paperboy,
}

impl Contender {
    /// In the order of a round.
    pub(super) const ALL: [Contender; 3] =
        [Contender::FloorSingle, Contender::FloorCoalesced, Contender::Paperboy];

    /// The name in JSON and of logs.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Contender::FloorSingle => "floor_single",
            Contender::FloorCoalesced => "floor_coalesced",
            Contender::Paperboy => "paperboy",
        }
    }

    /// The name for people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Contender::FloorSingle => "floor, single acks",
            Contender::FloorCoalesced => "floor, coalesced acks",
            Contender::Paperboy => "paperboy",
        }
    }

    /// The command that is this worker; a floor knows where to send to without being told by subscriptions.
    pub(super) fn arguments(self, addresses: &str, endpoints: usize) -> Vec<String> {
        let acknowledge = match self {
            Contender::Paperboy => return ["serve", "--role", "worker"].map(str::to_owned).to_vec(),
            Contender::FloorSingle => "single",
            Contender::FloorCoalesced => "coalesced",
        };
        let endpoints = endpoints.to_string();
        let words = [
            "bench-floor",
            "--acknowledge",
            acknowledge,
            "--addresses",
            addresses,
            "--endpoints",
            &endpoints,
        ];
        words.map(str::to_owned).to_vec()
    }
}
