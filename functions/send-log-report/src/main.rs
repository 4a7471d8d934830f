use send_log_report::{Deps, handle};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let aws = runtime::aws_config().await;
    runtime::serve("send-log-report", Deps::from_env(&aws), handle).await
}
