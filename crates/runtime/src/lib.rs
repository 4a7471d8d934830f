//! What every function needs before its own work begins: configuration, AWS access, errors with stable
//! names, the time, logs and metrics. No step's logic may enter.

mod aws;
mod clock;
mod config;
mod metrics;
mod serve;
mod usage;

pub use aws::aws_config;
pub use clock::{Call, Clock, ManualClock, SystemClock};
pub use config::{Config, ConfigMissing};
pub use metrics::{Metrics, Unit, step_metrics};
pub use serve::serve;
