//! SQS as operators use it: how full a queue is, and bringing a dead-letter queue back. The functions get their
//! messages from Lambda and need none of this. No pipeline may enter: what a message says is decided by the caller.

mod memory;
mod sqs;

pub use memory::MemoryQueues;

use async_trait::async_trait;
use errors::{Name, Named};
use serde::Serialize;
use std::{collections::HashSet, error::Error, sync::Arc, time::Duration};

/// How long a message that is looked at stays hidden from others.
const HIDDEN: Duration = Duration::from_secs(60);
/// Empty receives in a row after which a queue counts as empty: one can come from a server that holds none of it.
const EMPTY: usize = 3;

/// Messages of a queue; SQS counts them approximately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Depth {
    pub visible: u64,
    /// Received and neither deleted nor visible again.
    pub in_flight: u64,
    pub delayed: u64,
}

impl Depth {
    pub fn total(self) -> u64 {
        self.visible + self.in_flight + self.delayed
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub id: String,
    pub body: String,
    /// Names this receive of the message.
    pub receipt: String,
}

/// The requests that SQS knows; each method is one of them.
#[async_trait]
pub trait QueueStore: Send + Sync {
    async fn depth(&self, url: &str) -> Result<Depth, QueueError>;
    /// Up to ten messages, hidden for that long.
    async fn receive(&self, url: &str, hidden: Duration) -> Result<Vec<Message>, QueueError>;
    async fn show(&self, url: &str, receipt: &str) -> Result<(), QueueError>;
    async fn send(&self, url: &str, body: &str) -> Result<(), QueueError>;
    async fn delete(&self, url: &str, receipt: &str) -> Result<(), QueueError>;
}

#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("{operation} on queue {url}: the queue does not exist")]
    Missing { operation: &'static str, url: String },
    #[error("{operation} on queue {url} is not allowed: {message}")]
    Denied { operation: &'static str, url: String, message: String },
    #[error("{operation} on queue {url} failed: {message}")]
    Unavailable { operation: &'static str, url: String, message: String, source: Box<dyn Error + Send + Sync> },
}

impl Named for QueueError {
    fn name(&self) -> Name {
        match self {
            QueueError::Missing { .. } => Name::QueueMissing,
            QueueError::Denied { .. } => Name::QueueDenied,
            QueueError::Unavailable { .. } => Name::QueueUnavailable,
        }
    }
}

#[derive(Clone)]
pub struct Queue {
    store: Arc<dyn QueueStore>,
    url: String,
}

impl Queue {
    pub fn new(config: &aws_config::SdkConfig, url: String) -> Self {
        Queue { store: Arc::new(sqs::Sqs::new(config)), url }
    }

    /// A queue of another store than SQS, such as [`MemoryQueues`].
    pub fn over(store: impl QueueStore + 'static, url: impl Into<String>) -> Self {
        Queue { store: Arc::new(store), url: url.into() }
    }

    pub async fn depth(&self) -> Result<Depth, QueueError> {
        self.store.depth(&self.url).await
    }

    /// Looks at every visible message, and leaves it as it is.
    pub async fn peek(&self, mut look: impl FnMut(&Message)) -> Result<(), QueueError> {
        let mut receipts = Vec::new();
        let outcome = self.receive_all(async |message| {
            look(&message);
            receipts.push(message.receipt);
            Ok(())
        });
        let outcome = outcome.await;
        for receipt in receipts {
            self.store.show(&self.url, &receipt).await?;
        }
        outcome
    }

    /// Sends every visible message to `target`, and only then removes it here: one that is sent when the connection
    /// breaks is sent again the next time. Returns how many were moved.
    pub async fn replay_to(&self, target: &Queue, mut moved: impl FnMut(&Message)) -> Result<u64, QueueError> {
        let mut count = 0;
        let outcome = self.receive_all(async |message| {
            target.store.send(&target.url, &message.body).await?;
            self.store.delete(&self.url, &message.receipt).await?;
            count += 1;
            moved(&message);
            Ok(())
        });
        outcome.await?;
        Ok(count)
    }

    async fn receive_all(
        &self,
        mut take: impl AsyncFnMut(Message) -> Result<(), QueueError>,
    ) -> Result<(), QueueError> {
        let (mut seen, mut empty) = (HashSet::new(), 0);
        while empty < EMPTY {
            let messages = self.store.receive(&self.url, HIDDEN).await?;
            let mut is_new = false;
            for message in messages {
                // One that comes back while we look was hidden for too short a time: the round is over.
                if seen.insert(message.id.clone()) {
                    is_new = true;
                    take(message).await?;
                }
            }
            empty = if is_new { 0 } else { empty + 1 };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> (MemoryQueues, Queue, Queue) {
        let queues = MemoryQueues::default();
        for at in 0..25 {
            queues.put("dead", &format!("message {at}"));
        }
        (queues.clone(), Queue::over(queues.clone(), "dead"), Queue::over(queues, "live"))
    }

    #[tokio::test]
    async fn a_look_leaves_every_message_where_it_is() {
        let (queues, dead, _) = full();
        let mut seen = 0;
        dead.peek(|_| seen += 1).await.expect("looked at");
        assert_eq!((seen, queues.bodies("dead").len()), (25, 25));
        assert_eq!(dead.depth().await.expect("known"), Depth { visible: 25, ..Depth::default() });
    }

    #[tokio::test]
    async fn a_replay_moves_every_message_and_an_interrupted_one_loses_none() {
        for fail_at in 0..80 {
            let (queues, dead, live) = full();
            queues.fail_at(fail_at);
            let first = dead.replay_to(&live, |_| {}).await;
            queues.show_all("dead");
            // A fault behind the last request of the first replay must not strike the second.
            queues.fail_at(usize::MAX / 2);
            dead.replay_to(&live, |_| {}).await.expect("nothing fails");
            let mut bodies = queues.bodies("live");
            bodies.sort();
            let sent = bodies.len();
            bodies.dedup();
            assert_eq!(bodies.len(), 25, "a message is lost: {first:?}");
            assert!(sent <= 26, "one fault sends one message twice");
            assert_eq!(queues.bodies("dead").len(), 0);
        }
    }
}
