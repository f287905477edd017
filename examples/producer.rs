//! Publishes one event as a pipeline should: persistent, confirmed, and known to have reached a queue.

use anyhow::{Context as _, Result, bail};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use serde_json::{Value, json};

/// Returns once RabbitMQ has the event. On an error publish it again: the `id` stays, so nobody is told twice.
async fn publish(channel: &Channel, exchange: &str, event: &Value) -> Result<()> {
    let kind = event["type"].as_str().context("an event has a `type`")?;
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let body = serde_json::to_vec(event)?;
    let confirm = channel.basic_publish(exchange.into(), kind.into(), options, &body, persistent).await?;
    match confirm.await? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(_)) => bail!("the event came back: no queue is bound to `{exchange}`"),
        Confirmation::Nack(_) => bail!("RabbitMQ refused the event: the queue is full"),
        Confirmation::NotRequested => bail!("confirms are off"),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::var("AMQP_URL").context("`AMQP_URL` is not set")?;
    let exchange = std::env::var("EXCHANGE").unwrap_or_else(|_| "paperboy.events".into());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;

    let event = json!({
        "id": "evt_0192d7f0",
        "type": "document.processed",
        "tenant": "acme",
        "document_id": "a7046a49",
        "data": { "pages": 3 },
    });
    // One publish under way at a time on a channel: the broker's answer is then this event's.
    tokio::time::timeout(std::time::Duration::from_secs(30), publish(&channel, &exchange, &event)).await??;
    connection.close(200, "done".into()).await?;
    Ok(())
}
