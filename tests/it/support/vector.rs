//! Requests to judge, good and bad, signed without anything of paperboy's.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use ring::hmac;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// One request to judge.
#[derive(Clone, Debug)]
pub(crate) struct Vector {
    /// What the clock says where it can be set, in Unix seconds; none: the real time.
    pub(crate) clock: Option<u64>,
    pub(crate) secret: String,
    pub(crate) id: String,
    pub(crate) timestamp: String,
    pub(crate) signature: String,
    pub(crate) body: String,
    pub(crate) is_genuine: bool,
}

impl Vector {
    /// The example of the Standard Webhooks libraries.
    fn known() -> Vector {
        Vector {
            clock: Some(1_614_265_330),
            secret: SECRET.into(),
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".into(),
            timestamp: "1614265330".into(),
            signature: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".into(),
            body: r#"{"test": 2432232314}"#.into(),
            is_genuine: true,
        }
    }

    /// Signed here, `age_s` ago.
    fn signed(age_s: i64) -> Vector {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let timestamp = now.checked_add_signed(-age_s).unwrap().to_string();
        let known = Vector::known();
        let key = BASE64.decode(SECRET.trim_start_matches("whsec_").as_bytes()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let content = format!("{}.{timestamp}.{}", known.id, known.body);
        let signature = format!("v1,{}", BASE64.encode(hmac::sign(&key, content.as_bytes()).as_ref()));
        Vector { clock: None, timestamp, signature, ..known }
    }

    fn bad(mut self, change: impl FnOnce(&mut Vector)) -> Vector {
        change(&mut self);
        self.is_genuine = false;
        self
    }
}

/// Good and bad requests, those whose clock has to be set first.
pub(crate) fn vectors() -> Vec<Vector> {
    let (known, fresh) = (Vector::known, || Vector::signed(0));
    vec![
        known(),
        Vector { clock: Some(1_614_265_330 + 300), ..known() },
        Vector { clock: Some(1_614_265_330 - 300), ..known() },
        known().bad(|vector| vector.clock = Some(1_614_265_330 + 302)),
        known().bad(|vector| vector.clock = Some(1_614_265_330 - 302)),
        known().bad(|vector| vector.clock = None),
        known().bad(|vector| vector.body.push(' ')),
        fresh(),
        Vector::signed(250),
        Vector { signature: format!("v1,AAAA {} v1a,BBBB", fresh().signature), ..fresh() },
        Vector::signed(310).bad(|_| {}),
        Vector::signed(-310).bad(|_| {}),
        fresh().bad(|vector| vector.body = vector.body.replace('4', "5")),
        fresh().bad(|vector| vector.id.push('x')),
        fresh().bad(|vector| vector.timestamp = (vector.timestamp.parse::<u64>().unwrap() - 1).to_string()),
        fresh().bad(|vector| vector.secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".into()),
        fresh().bad(|vector| vector.signature = vector.signature.replace("v1,", "v2,")),
        fresh().bad(|vector| vector.signature = vector.signature.replace("v1,", "")),
        fresh().bad(|vector| vector.signature = "v1,".into()),
        fresh().bad(|vector| vector.signature = String::new()),
        fresh().bad(|vector| vector.timestamp = "now".into()),
    ]
}

/// Those that need no other clock.
pub(crate) fn vectors_of_now() -> Vec<Vector> {
    vectors().into_iter().filter(|vector| vector.clock.is_none()).collect()
}
