use crate::{Depth, Message, QueueError, QueueStore};
use async_trait::async_trait;
use aws_sdk_sqs::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::QueueAttributeName,
};
use std::{error::Error, time::Duration};

pub struct Sqs(Client);

impl Sqs {
    pub fn new(config: &aws_config::SdkConfig) -> Self {
        Sqs(Client::new(config))
    }
}

#[async_trait]
impl QueueStore for Sqs {
    async fn depth(&self, url: &str) -> Result<Depth, QueueError> {
        const VISIBLE: QueueAttributeName = QueueAttributeName::ApproximateNumberOfMessages;
        const IN_FLIGHT: QueueAttributeName = QueueAttributeName::ApproximateNumberOfMessagesNotVisible;
        const DELAYED: QueueAttributeName = QueueAttributeName::ApproximateNumberOfMessagesDelayed;
        let request = self.0.get_queue_attributes().queue_url(url);
        let request = request.attribute_names(VISIBLE).attribute_names(IN_FLIGHT).attribute_names(DELAYED);
        let response = request.send().await.map_err(|error| failed("GetQueueAttributes", url, error))?;
        let attributes = response.attributes.unwrap_or_default();
        let number = |name| attributes.get(&name).and_then(|text| text.parse().ok()).unwrap_or_default();
        Ok(Depth { visible: number(VISIBLE), in_flight: number(IN_FLIGHT), delayed: number(DELAYED) })
    }

    async fn receive(&self, url: &str, hidden: Duration) -> Result<Vec<Message>, QueueError> {
        let request = self.0.receive_message().queue_url(url).max_number_of_messages(10);
        let request = request.visibility_timeout(hidden.as_secs() as i32).wait_time_seconds(1);
        let response = request.send().await.map_err(|error| failed("ReceiveMessage", url, error))?;
        let messages = response.messages.unwrap_or_default().into_iter().filter_map(|message| {
            Some(Message { id: message.message_id?, body: message.body?, receipt: message.receipt_handle? })
        });
        Ok(messages.collect())
    }

    async fn show(&self, url: &str, receipt: &str) -> Result<(), QueueError> {
        let request = self.0.change_message_visibility().queue_url(url).receipt_handle(receipt).visibility_timeout(0);
        request.send().await.map_err(|error| failed("ChangeMessageVisibility", url, error))?;
        Ok(())
    }

    async fn send(&self, url: &str, body: &str) -> Result<(), QueueError> {
        let request = self.0.send_message().queue_url(url).message_body(body);
        request.send().await.map_err(|error| failed("SendMessage", url, error))?;
        Ok(())
    }

    async fn delete(&self, url: &str, receipt: &str) -> Result<(), QueueError> {
        let request = self.0.delete_message().queue_url(url).receipt_handle(receipt);
        request.send().await.map_err(|error| failed("DeleteMessage", url, error))?;
        Ok(())
    }
}

fn failed<E, R>(operation: &'static str, url: &str, error: SdkError<E, R>) -> QueueError
where
    E: Error + Send + Sync + ProvideErrorMetadata + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let url = url.to_owned();
    let message = [error.code(), error.message()].into_iter().flatten().collect::<Vec<_>>().join(": ");
    let code = error.code().unwrap_or_default();
    if code.contains("NonExistentQueue") || code.contains("QueueDoesNotExist") {
        return QueueError::Missing { operation, url };
    }
    if code.contains("AccessDenied") {
        return QueueError::Denied { operation, url, message };
    }
    QueueError::Unavailable { operation, url, message, source: Box::new(error) }
}
