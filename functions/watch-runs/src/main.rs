use watch_runs::{Deps, handle};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let aws = runtime::aws_config().await;
    runtime::serve("watch-runs", Deps::from_env(&aws), handle).await
}
