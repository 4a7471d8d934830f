use crate::{Depth, Message, QueueError, QueueStore};
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Queues in memory, for unit tests. A message stays hidden until it is shown.
#[derive(Clone, Default)]
pub struct MemoryQueues(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    queues: BTreeMap<String, Vec<Held>>,
    sent: u64,
    requests: usize,
    fail_at: Option<usize>,
}

struct Held {
    id: String,
    body: String,
    is_hidden: bool,
}

impl MemoryQueues {
    pub fn put(&self, url: &str, body: &str) {
        let mut state = self.state();
        state.sent += 1;
        let id = state.sent.to_string();
        state.queues.entry(url.to_owned()).or_default().push(Held { id, body: body.to_owned(), is_hidden: false });
    }

    pub fn bodies(&self, url: &str) -> Vec<String> {
        self.state().queues.get(url).into_iter().flatten().map(|held| held.body.clone()).collect()
    }

    /// The n-th request from now on, counted from 0, fails.
    pub fn fail_at(&self, nth: usize) {
        let mut state = self.state();
        state.fail_at = Some(state.requests + nth);
    }

    /// The time has passed for which messages were hidden.
    pub fn show_all(&self, url: &str) {
        self.state().queues.entry(url.to_owned()).or_default().iter_mut().for_each(|held| held.is_hidden = false);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request<T>(
        &self,
        operation: &'static str,
        url: &str,
        work: impl FnOnce(&mut Vec<Held>) -> T,
    ) -> Result<T, QueueError> {
        let mut state = self.state();
        state.requests += 1;
        if state.fail_at == Some(state.requests - 1) {
            let (url, message) = (url.to_owned(), "the connection broke".to_owned());
            return Err(QueueError::Unavailable { operation, url, message, source: "broken".into() });
        }
        Ok(work(state.queues.entry(url.to_owned()).or_default()))
    }
}

#[async_trait]
impl QueueStore for MemoryQueues {
    async fn depth(&self, url: &str) -> Result<Depth, QueueError> {
        self.request("GetQueueAttributes", url, |queue| {
            let in_flight = queue.iter().filter(|held| held.is_hidden).count() as u64;
            Depth { visible: queue.len() as u64 - in_flight, in_flight, delayed: 0 }
        })
    }

    async fn receive(&self, url: &str, _: Duration) -> Result<Vec<Message>, QueueError> {
        self.request("ReceiveMessage", url, |queue| {
            let visible = queue.iter_mut().filter(|held| !held.is_hidden).take(10);
            let received = visible.map(|held| {
                held.is_hidden = true;
                Message { id: held.id.clone(), body: held.body.clone(), receipt: held.id.clone() }
            });
            received.collect()
        })
    }

    async fn show(&self, url: &str, receipt: &str) -> Result<(), QueueError> {
        self.request("ChangeMessageVisibility", url, |queue| {
            queue.iter_mut().filter(|held| held.id == receipt).for_each(|held| held.is_hidden = false);
        })
    }

    async fn send(&self, url: &str, body: &str) -> Result<(), QueueError> {
        self.request("SendMessage", url, |_| ())?;
        self.put(url, body);
        Ok(())
    }

    async fn delete(&self, url: &str, receipt: &str) -> Result<(), QueueError> {
        self.request("DeleteMessage", url, |queue| queue.retain(|held| held.id != receipt))
    }
}
