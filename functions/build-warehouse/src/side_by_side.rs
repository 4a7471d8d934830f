//! Several works at once, each a task of its own: on as many processors as there are.

use crate::Error;
use std::collections::BTreeMap;
use tokio::task::JoinSet;

/// Does a work for each of these, so many at once. They end with it.
pub async fn side_by_side<T: Send + 'static, W: Future<Output = Result<T, Error>> + Send + 'static>(
    of: impl IntoIterator<Item = usize>,
    at_once: usize,
    mut work: impl FnMut(usize) -> W,
) -> Result<BTreeMap<usize, T>, Error> {
    let (mut waiting, mut tasks, mut done) = (of.into_iter(), JoinSet::new(), BTreeMap::new());
    loop {
        while tasks.len() < at_once
            && let Some(at) = waiting.next()
        {
            let work = work(at);
            tasks.spawn(async move { (at, work.await) });
        }
        let Some(ended) = tasks.join_next().await else { return Ok(done) };
        let (at, result) = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        done.insert(at, result?);
    }
}
