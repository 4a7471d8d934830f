//! What lies between a caller and a service that is kept in memory. Production has a real network instead; a unit
//! test or a simulation implements [`Network`] to delay a request, to fail it, or to lose its answer. Each request
//! passes here twice, so that each is a point at which a simulation can let another caller go on.
//! Nothing of a service, of a pipeline or of time itself may enter.

use async_trait::async_trait;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

/// A request as an observer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `s3`, `dynamodb`, `states`, `ses` or `source`.
    pub service: &'static str,
    /// The operation's name in the service's own API: `PutObject`.
    pub operation: &'static str,
    /// What it is about: `bucket/key`, `table/partition/sort`, an execution.
    pub subject: String,
}

/// The request failed, or its answer was lost: the caller sees the same in both cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection broke")
    }
}

impl std::error::Error for Broken {}

/// How the answer of a request that was carried out reaches its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Arrives,
    /// The caller sees an error and cannot know that the request was carried out.
    IsLost,
    /// The client library sends the same request again by itself, and the caller learns of the second answer only.
    IsLostAndRetried,
}

#[async_trait]
pub trait Network: Send + Sync {
    /// Before the service carries out the request. On an error it never does.
    async fn sent(&self, _request: &Request) -> Result<(), Broken> {
        Ok(())
    }

    /// After the service has carried it out.
    async fn answered(&self, _request: &Request) -> Answer {
        Answer::Arrives
    }

    /// How many items of a batch of `items` the service leaves unprocessed this time.
    fn unprocessed(&self, _request: &Request, _items: usize) -> usize {
        0
    }

    /// How many of the latest changes an eventually consistent read does not see yet.
    fn lag(&self, _request: &Request) -> usize {
        0
    }

    /// A client waits before it tries again. Nothing waits in memory, unless a simulation has a clock.
    async fn wait(&self, _time: Duration) {}
}

/// Delivers everything at once.
pub struct Calm;

#[async_trait]
impl Network for Calm {}

impl Calm {
    pub fn shared() -> Arc<dyn Network> {
        Arc::new(Calm)
    }
}

/// Passes a request through the network; `carry_out` is the service, which may be asked twice.
pub async fn through<T>(
    network: &dyn Network,
    request: &Request,
    mut carry_out: impl FnMut() -> T + Send,
) -> Result<T, Broken>
where
    T: Send,
{
    loop {
        network.sent(request).await?;
        let answer = carry_out();
        match network.answered(request).await {
            Answer::Arrives => return Ok(answer),
            Answer::IsLost => return Err(Broken),
            Answer::IsLostAndRetried => {}
        }
    }
}

/// As [`through`], for a client that sends nothing again by itself.
pub async fn through_once<T: Send>(
    network: &dyn Network,
    request: &Request,
    carry_out: impl FnOnce() -> T + Send,
) -> Result<T, Broken> {
    network.sent(request).await?;
    let answer = carry_out();
    match network.answered(request).await {
        Answer::Arrives => Ok(answer),
        Answer::IsLost | Answer::IsLostAndRetried => Err(Broken),
    }
}

/// Where [`OneFault`] strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// The request never arrives.
    Request,
    /// The request is carried out, its answer is lost.
    Answer,
    /// The answer is lost, and the client library asks again.
    AnswerThenRetry,
}

/// Fails the n-th request that passes, counted from 0, and no other. With `usize::MAX` it only counts.
pub struct OneFault {
    nth: usize,
    strike: Strike,
    seen: AtomicUsize,
    struck: AtomicUsize,
}

impl OneFault {
    pub fn at(nth: usize, strike: Strike) -> Arc<Self> {
        Arc::new(OneFault { nth, strike, seen: AtomicUsize::new(0), struck: AtomicUsize::new(0) })
    }

    /// Requests that have passed.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    /// Whether the fault came to pass.
    pub fn struck(&self) -> bool {
        self.struck.load(Ordering::SeqCst) > 0
    }
}

#[async_trait]
impl Network for OneFault {
    async fn sent(&self, _: &Request) -> Result<(), Broken> {
        let number = self.seen.fetch_add(1, Ordering::SeqCst);
        if number != self.nth {
            return Ok(());
        }
        if self.strike == Strike::Request {
            self.struck.store(1, Ordering::SeqCst);
            return Err(Broken);
        }
        Ok(())
    }

    async fn answered(&self, _: &Request) -> Answer {
        // Callers of one test follow each other, so that the request counted last is the one that is answered.
        let is_hit = self.seen() == self.nth.saturating_add(1) && !self.struck();
        if !is_hit || self.strike == Strike::Request {
            return Answer::Arrives;
        }
        self.struck.store(1, Ordering::SeqCst);
        if self.strike == Strike::Answer { Answer::IsLost } else { Answer::IsLostAndRetried }
    }
}
