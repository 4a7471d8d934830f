use aggregate_log_dashboard::{Deps, handle};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let aws = runtime::aws_config().await;
    runtime::serve("aggregate-log-dashboard", Deps::from_env(&aws), handle).await
}
