use send_summary::{Deps, handle};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let aws = runtime::aws_config().await;
    runtime::serve("send-summary", Deps::from_env(&aws), handle).await
}
