use collect_windows::{Deps, handle};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let aws = runtime::aws_config().await;
    runtime::serve("collect-windows", Deps::from_env(&aws), handle).await
}
