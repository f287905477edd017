//! Tokens for deliveries that log in first: fetched when needed, used for their life, shared.
//!
//! One login at a time for each distinct one, whoever asks: the others wait for it and take what it brought, a failure
//! too. A login that hangs holds up nobody but those who need its token, and those within their own time limits.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Mutex;
use tracing::debug;

use super::failure::Failure;
use crate::domain::auth::TokenRequest;
use crate::domain::auth::token::{ANSWER_BYTES_MAX, Token, TokenFault};
use crate::domain::request::Request;
use crate::domain::secret::Secret;
use crate::domain::statuses::Class;

/// The longest a login is waited for, also where the delivery has more time.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Logins remembered at a time; one more forgets those that nobody asks for just now.
const LOGINS_MAX: usize = 10_000;

/// A place where processes share tokens. Whatever goes wrong there means "nothing there".
pub trait Shelf: Send + Sync {
    /// What lies under this key.
    fn get<'a>(&'a self, key: &'a [u8; 32])
    -> Pin<Box<dyn Future<Output = Option<SharedToken>> + Send + 'a>>;

    /// Lays a token there until its end.
    fn put<'a>(
        &'a self,
        key: &'a [u8; 32],
        token: SharedToken,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// A token on the shelf.
#[derive(Clone, Debug)]
pub struct SharedToken {
    /// The finished value of `authorization`.
    pub value: Secret,
    /// When its life ends, in Unix seconds.
    pub until_unix_s: u64,
}

/// What answers a login's request.
pub(super) struct LoginAnswer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// There was more than [`ANSWER_BYTES_MAX`].
    pub(super) is_cut: bool,
}

pub(super) struct Tokens {
    slots: std::sync::Mutex<HashMap<[u8; 32], Arc<Mutex<Slot>>>>,
    shelf: Option<Arc<dyn Shelf>>,
}

/// What is known of one login. Whoever holds the lock is the one that logs in.
#[derive(Default)]
struct Slot {
    token: Option<Kept>,
    failed: Option<(Instant, Failure)>,
}

struct Kept {
    value: Secret,
    /// When it came: for all who waited, whatever its life.
    came: Instant,
    until: Instant,
}

impl Tokens {
    pub(super) fn new(shelf: Option<Arc<dyn Shelf>>) -> Tokens {
        Tokens { slots: std::sync::Mutex::default(), shelf }
    }

    fn slot(&self, key: [u8; 32]) -> Arc<Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= LOGINS_MAX && !slots.contains_key(&key) {
            // Whoever asks holds its slot; what is forgotten is fetched again.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(key).or_default())
    }

    /// The value of `authorization`; another one than `rejected`, which a receiver refused.
    ///
    /// Fails as `auth`, at the latest at `deadline`.
    pub(super) async fn get<C, A>(
        &self,
        login: &TokenRequest,
        rejected: Option<&Secret>,
        deadline: Instant,
        call: C,
    ) -> Result<Secret, Failure>
    where
        C: FnOnce(Request) -> A,
        A: Future<Output = Result<LoginAnswer, Failure>>,
    {
        let limit = deadline.min(Instant::now() + LOGIN_TIMEOUT);
        let late = || failed("the login did not answer in time");
        if !login.may_be_kept() {
            // Nobody else could use what it brings: none waits for another's.
            let fetched = tokio::time::timeout_at(limit.into(), self.fetch(login, rejected, limit, call));
            return fetched.await.unwrap_or_else(|_| Err(late())).map(|token| token.value);
        }
        let slot = self.slot(login.key());
        let asked = Instant::now();
        let taken = tokio::time::timeout_at(limit.into(), slot.lock()).await;
        let mut slot =
            taken.map_err(|_| failed("no token in time: another delivery still waits for this login"))?;
        // What came in while we waited for our turn is for us too.
        if let Some((at, failure)) = &slot.failed
            && *at >= asked
        {
            return Err(failure.clone());
        }
        if let Some(kept) = &slot.token
            && (kept.until > Instant::now() || kept.came >= asked)
            && rejected != Some(&kept.value)
        {
            return Ok(kept.value.clone());
        }
        let fetched = tokio::time::timeout_at(limit.into(), self.fetch(login, rejected, limit, call)).await;
        let fetched = fetched.unwrap_or_else(|_| Err(late()));
        let came = Instant::now();
        *slot = match &fetched {
            Ok(token) => Slot {
                token: Some(Kept { value: token.value.clone(), came, until: came + token.life }),
                failed: None,
            },
            Err(failure) => Slot { token: None, failed: Some((came, failure.clone())) },
        };
        fetched.map(|token| token.value)
    }

    /// From the shelf, else by logging in.
    async fn fetch<C, A>(
        &self,
        login: &TokenRequest,
        rejected: Option<&Secret>,
        limit: Instant,
        call: C,
    ) -> Result<Token, Failure>
    where
        C: FnOnce(Request) -> A,
        A: Future<Output = Result<LoginAnswer, Failure>>,
    {
        let shelf = self.shelf.as_deref().filter(|_| login.may_be_kept());
        if let Some(shelf) = shelf
            && let Some(shared) = shelf.get(&login.key()).await
            && rejected != Some(&shared.value)
            && shared.until_unix_s > unix_s()
        {
            count("shared");
            let life = Duration::from_secs(shared.until_unix_s - unix_s());
            return Ok(Token { value: shared.value, life });
        }
        let timeout = limit.saturating_duration_since(Instant::now());
        let answer = call(login.request(timeout)).await;
        let token = answer
            .map_err(|failure| Failure {
                is_ours: failure.is_ours,
                ..failed(format!("the login failed: {}", failure.text))
            })
            .and_then(|answer| {
                let read = if answer.is_cut {
                    Err(TokenFault::TooLong)
                } else {
                    login.read(answer.status, &answer.body)
                };
                read.map_err(|fault| failed(fault.to_string()))
            });
        count(if token.is_ok() { "fetched" } else { "failed" });
        let token = token?;
        debug!(life_s = token.life.as_secs(), "a login brought a token");
        if let Some(shelf) = shelf.filter(|_| !token.life.is_zero()) {
            let until_unix_s = unix_s() + token.life.as_secs();
            shelf.put(&login.key(), SharedToken { value: token.value.clone(), until_unix_s }).await;
        }
        Ok(token)
    }
}

fn failed(text: impl Into<String>) -> Failure {
    Failure::new(Class::Auth, text)
}

fn count(result: &'static str) {
    metrics::counter!("paperboy_logins_total", "result" => result).increment(1);
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(super) fn is_too_long(bytes: usize) -> bool {
    bytes > ANSWER_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::auth::token::Settings;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    const LONG: Duration = Duration::from_secs(60);

    fn login(cache_s: Option<u32>) -> TokenRequest {
        TokenRequest::new(&Settings { url: "http://h.example/login", cache_s, ..Settings::default() })
            .unwrap()
    }

    fn brings(token: &str) -> Result<LoginAnswer, Failure> {
        let body = format!("{{\"access_token\":\"{token}\"}}").into_bytes();
        Ok(LoginAnswer { status: 200, body, is_cut: false })
    }

    fn deadline() -> Instant {
        Instant::now() + LONG
    }

    #[tokio::test]
    async fn many_who_ask_at_once_log_in_once() {
        let (tokens, login, calls) = (Tokens::new(None), login(None), AtomicUsize::new(0));
        let ask = || {
            tokens.get(&login, None, deadline(), |_| async {
                tokio::task::yield_now().await;
                brings(&format!("t{}", calls.fetch_add(1, SeqCst)))
            })
        };
        let all = futures_util::future::join_all((0..50).map(|_| ask())).await;
        assert!(all.iter().all(|token| token.as_ref().unwrap().expose() == "Bearer t0"));
        assert_eq!(calls.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn logins_that_may_not_be_kept_do_not_wait_for_each_other() {
        let (tokens, login, all) = (Tokens::new(None), login(Some(0)), tokio::sync::Barrier::new(20));
        let ask = || {
            tokens.get(&login, None, deadline(), |_| async {
                all.wait().await;
                brings("t")
            })
        };
        let asked = futures_util::future::join_all((0..20).map(|_| ask()));
        let asked = tokio::time::timeout(Duration::from_secs(5), asked).await.unwrap();
        assert!(asked.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn those_who_waited_take_a_token_that_ends_at_once() {
        let (tokens, login, calls) = (Tokens::new(None), login(None), AtomicUsize::new(0));
        let ask = || {
            tokens.get(&login, None, deadline(), |_| async {
                calls.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
                let body = br#"{"access_token":"t","expires_in":0}"#.to_vec();
                Ok(LoginAnswer { status: 200, body, is_cut: false })
            })
        };
        let all = futures_util::future::join_all((0..20).map(|_| ask())).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(calls.load(SeqCst), 1);
        ask().await.unwrap();
        assert_eq!(calls.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn those_who_waited_take_the_failure_too_and_the_next_tries_again() {
        let (tokens, login, calls) = (Tokens::new(None), login(None), AtomicUsize::new(0));
        let ask = || {
            tokens.get(&login, None, deadline(), |_| async {
                calls.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
                Ok(LoginAnswer { status: 500, body: Vec::new(), is_cut: false })
            })
        };
        let all = futures_util::future::join_all((0..20).map(|_| ask())).await;
        assert!(all.iter().all(|token| token.as_ref().unwrap_err().class == Class::Auth));
        assert_eq!(calls.load(SeqCst), 1);
        let again = tokens.get(&login, None, deadline(), |_| async { brings("t") }).await;
        assert_eq!(again.unwrap().expose(), "Bearer t");
    }

    #[tokio::test]
    async fn a_rejected_token_is_fetched_anew_once_for_all() {
        let (tokens, login, calls) = (Tokens::new(None), login(None), AtomicUsize::new(0));
        let ask = |rejected: Option<Secret>| {
            let (tokens, login, calls) = (&tokens, &login, &calls);
            async move {
                let call = |_| async { brings(&format!("t{}", calls.fetch_add(1, SeqCst))) };
                tokens.get(login, rejected.as_ref(), deadline(), call).await.unwrap()
            }
        };
        let first = ask(None).await;
        let second = ask(Some(first.clone())).await;
        assert_eq!((first.expose(), second.expose()), ("Bearer t0", "Bearer t1"));
        assert_eq!(ask(Some(first)).await.expose(), "Bearer t1", "another one has fetched it already");
        assert_eq!(calls.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn a_token_is_not_used_beyond_its_life() {
        let (tokens, login, calls) = (Tokens::new(None), login(Some(0)), AtomicUsize::new(0));
        for count in 1..=3 {
            tokens
                .get(&login, None, deadline(), |_| async {
                    calls.fetch_add(1, SeqCst);
                    brings("t")
                })
                .await
                .unwrap();
            assert_eq!(calls.load(SeqCst), count);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_hangs_fails_as_auth_within_the_delivery_s_time() {
        let (tokens, login) = (Tokens::new(None), login(None));
        let started = tokio::time::Instant::now();
        let deadline = started.into_std() + Duration::from_secs(2);
        let failure = tokens.get(&login, None, deadline, |_| std::future::pending()).await.unwrap_err();
        assert_eq!(failure.class, Class::Auth);
        assert!(started.elapsed() <= Duration::from_secs(3));
    }

    /// A shelf in memory.
    #[derive(Default)]
    struct Board(std::sync::Mutex<Option<SharedToken>>);

    impl Shelf for Board {
        fn get<'a>(
            &'a self,
            _: &'a [u8; 32],
        ) -> Pin<Box<dyn Future<Output = Option<SharedToken>> + Send + 'a>> {
            Box::pin(async { self.0.lock().unwrap().clone() })
        }

        fn put<'a>(
            &'a self,
            _: &'a [u8; 32],
            token: SharedToken,
        ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
            *self.0.lock().unwrap() = Some(token);
            Box::pin(async {})
        }
    }

    #[tokio::test]
    async fn processes_share_what_one_of_them_fetched_but_never_a_rejected_one() {
        let (shelf, login) = (Arc::new(Board::default()), login(None));
        let (one, other) = (Tokens::new(Some(shelf.clone())), Tokens::new(Some(shelf)));
        let first = one.get(&login, None, deadline(), |_| async { brings("t0") }).await.unwrap();
        let taken = other.get(&login, None, deadline(), |_| async { brings("t1") }).await.unwrap();
        assert_eq!(taken, first);
        let fresh = other.get(&login, Some(&first), deadline(), |_| async { brings("t1") }).await.unwrap();
        assert_eq!(fresh.expose(), "Bearer t1");
        let followed = one.get(&login, Some(&first), deadline(), |_| async { brings("t2") }).await.unwrap();
        assert_eq!(followed.expose(), "Bearer t1");
    }

    #[tokio::test]
    async fn a_token_that_may_not_be_kept_is_not_shared() {
        let (shelf, login) = (Arc::new(Board::default()), login(Some(0)));
        let tokens = Tokens::new(Some(shelf.clone()));
        tokens.get(&login, None, deadline(), |_| async { brings("t") }).await.unwrap();
        assert!(shelf.0.lock().unwrap().is_none());
    }
}
