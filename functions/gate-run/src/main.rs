use gate_run::{Deps, handle};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let aws = runtime::aws_config().await;
    runtime::serve("gate-run", Deps::from_env(&aws), handle).await
}
