use consolidate_feeds::{Deps, handle};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let aws = runtime::aws_config().await;
    runtime::serve("consolidate-feeds", Deps::from_env(&aws), handle).await
}
