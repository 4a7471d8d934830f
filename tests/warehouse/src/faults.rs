//! What can happen to a call on its way: it dies at one of its requests, or a request fails.

use crate::world::World;
use network::{Answer, Broken, Network, OneFault, Request, Strike};
use rand::{Rng, RngExt, seq::IndexedRandom};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Notify;

/// Requests of a call among which one is chosen.
const REQUESTS: usize = 60;

/// Ends the caller at its n-th request: before the service sees it, or after.
struct Kill {
    left: AtomicUsize,
    before: bool,
    died: Notify,
}

impl Kill {
    async fn pass(&self, before: bool) {
        if self.before == before && self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait::async_trait]
impl Network for Kill {
    async fn sent(&self, _: &Request) -> Result<(), Broken> {
        self.pass(true).await;
        Ok(())
    }

    async fn answered(&self, _: &Request) -> Answer {
        self.pass(false).await;
        Answer::Arrives
    }
}

/// Does something that dies on its way, and lets the lease pass that it had.
pub async fn killed<O>(world: &World, rng: &mut impl Rng, act: impl AsyncFn(Arc<dyn Network>) -> O) {
    let kill = Arc::new(Kill {
        left: AtomicUsize::new(rng.random_range(0..REQUESTS)),
        before: rng.random_bool(0.5),
        died: Notify::new(),
    });
    tokio::select! {
        _ = act(kill.clone()) => {}
        _ = kill.died.notified() => {}
    }
    world.wait_for_leases();
}

/// Does something of which one request fails. Whether it fails with it is its own affair.
pub async fn disturbed<O>(world: &World, rng: &mut impl Rng, act: impl AsyncFn(Arc<dyn Network>) -> O) {
    let strike = *[Strike::Request, Strike::Answer, Strike::AnswerThenRetry].choose(rng).expect("strikes");
    act(OneFault::at(rng.random_range(0..REQUESTS), strike)).await;
    world.wait_for_leases();
}
