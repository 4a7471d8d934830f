use build_warehouse::{Deps, handle};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let aws = runtime::aws_config().await;
    runtime::serve("build-warehouse", Deps::from_env(&aws), handle).await
}
