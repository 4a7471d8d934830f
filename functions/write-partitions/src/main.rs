use write_partitions::{Deps, handle};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let aws = runtime::aws_config().await;
    runtime::serve("write-partitions", Deps::from_env(&aws), handle).await
}
