use classify_alerts::{Deps, handle};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let aws = runtime::aws_config().await;
    runtime::serve("classify-alerts", Deps::from_env(&aws), handle).await
}
