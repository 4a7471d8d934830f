use crate::usage::{ProcessUsage, peak_memory};
use crate::{Call, ConfigMissing, SystemClock};
use errors::{Name, Named, describe};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde::{Serialize, de::DeserializeOwned};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing_subscriber::EnvFilter;

/// Runs a function: builds its dependencies once, then handles one event after the other.
/// When configuration is missing each event fails with that error, so that the console shows it by name.
pub async fn serve<D, I, O, E>(
    name: &'static str,
    dependencies: Result<D, ConfigMissing>,
    handle: impl AsyncFn(&D, I, Call) -> Result<O, E>,
) -> Result<(), lambda_runtime::Error>
where
    I: DeserializeOwned,
    O: Serialize,
    E: Named,
{
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_target(false).with_current_span(false).init();
    let (dependencies, handle, clock) = (&dependencies, &handle, &SystemClock::shared());
    lambda_runtime::run(service_fn(move |event: LambdaEvent<serde_json::Value>| async move {
        let deadline = UNIX_EPOCH + Duration::from_millis(event.context.deadline);
        let allowed = deadline.duration_since(SystemTime::now()).unwrap_or_default();
        let call = Call::new(clock.clone(), allowed);
        let before = ProcessUsage::now();
        let dependencies = dependencies.as_ref().map_err(|missing| diagnostic(name, missing))?;
        let input = serde_json::from_value(event.payload).map_err(|error| Diagnostic {
            error_type: Name::InvalidInput.as_str().into(),
            error_message: format!("{name} cannot read its event: {error}"),
        })?;
        let ended = Box::pin(handle(dependencies, input, call)).await.map_err(|error| diagnostic(name, &error));
        let cpu_millis = ProcessUsage::now().cpu_millis_since(&before);
        tracing::info!(function = name, cpu_millis, peak_memory_bytes = peak_memory(), "call ended");
        ended
    }))
    .await
}

fn diagnostic(function: &str, error: &impl Named) -> Diagnostic {
    let message = describe(error);
    tracing::error!(function, error = error.name().as_str(), message, "failed");
    Diagnostic { error_type: error.name().as_str().into(), error_message: message }
}
