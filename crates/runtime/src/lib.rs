//! What every function needs before its own work begins: configuration, AWS access, errors with stable
//! names, logs and metrics. No step's logic may enter.

mod aws;
mod config;
mod metrics;
mod serve;

pub use aws::aws_config;
pub use config::{Config, ConfigMissing};
pub use metrics::{Metrics, Unit, step_metrics};
pub use serve::{Call, serve};
