//! A receipt: the right, and the duty, to settle one message once.

use tokio::sync::mpsc::UnboundedSender;

/// What is to be told to the broker about one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Done with: what follows is safe.
    Acknowledged,
    /// Not done with: give it to somebody else.
    HandedBack,
}

/// The right to settle one message, used up by using it.
///
/// A receipt belongs to the channel its message came through; once that channel is gone the broker
/// hands the message out again by itself and settling means nothing. Dropped unsettled (a panic, a
/// forgotten branch), the message is handed back, so that it never hangs until the process ends.
#[derive(Debug)]
pub struct Receipt {
    tag: u64,
    // Unbounded by type, bounded by the prefetch: there is one entry per message in hand at most.
    line: Option<UnboundedSender<(u64, Settlement)>>,
}

impl Receipt {
    /// A receipt for the message with this tag, settled through `line`.
    pub fn new(tag: u64, line: UnboundedSender<(u64, Settlement)>) -> Receipt {
        Receipt { tag, line: Some(line) }
    }

    /// Tells the broker that this message is done with. Only after what follows is safe.
    pub fn acknowledge(mut self) {
        self.settle(Settlement::Acknowledged);
    }

    /// Gives the message back to its queue, to be handed out again.
    pub fn hand_back(mut self) {
        self.settle(Settlement::HandedBack);
    }

    /// False once the channel is gone: the broker has taken the message back by itself.
    pub fn is_live(&self) -> bool {
        self.line.as_ref().is_some_and(|line| !line.is_closed())
    }

    /// Waits until the channel is gone.
    pub async fn gone(&self) {
        if let Some(line) = &self.line {
            line.closed().await;
        }
    }

    fn settle(&mut self, settlement: Settlement) {
        if let Some(line) = self.line.take() {
            // A closed line means a dead channel: the broker hands the message out again.
            let _ = line.send((self.tag, settlement));
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.settle(Settlement::HandedBack);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn a_forgotten_receipt_hands_its_message_back() {
        let (line, mut settled) = unbounded_channel();
        drop(Receipt::new(7, line));
        assert_eq!(settled.try_recv(), Ok((7, Settlement::HandedBack)));
    }

    #[test]
    fn an_acknowledged_message_is_settled_once() {
        let (line, mut settled) = unbounded_channel();
        Receipt::new(7, line).acknowledge();
        assert_eq!(settled.try_recv(), Ok((7, Settlement::Acknowledged)));
        assert!(settled.try_recv().is_err());
    }

    #[test]
    fn a_receipt_dies_with_its_channel() {
        let (line, settled) = unbounded_channel();
        let receipt = Receipt::new(7, line);
        assert!(receipt.is_live());
        drop(settled);
        assert!(!receipt.is_live());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_channel_wakes_who_waits_for_it() {
        let (line, settled) = unbounded_channel();
        let receipt = Receipt::new(7, line);
        let wait = std::time::Duration::from_secs(1);
        assert!(tokio::time::timeout(wait, receipt.gone()).await.is_err());
        drop(settled);
        receipt.gone().await;
    }
}
