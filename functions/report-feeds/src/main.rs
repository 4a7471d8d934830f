use report_feeds::{Deps, handle};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let aws = runtime::aws_config().await;
    runtime::serve("report-feeds", Deps::from_env(&aws), handle).await
}
