//! Publishes one interactive event and prints what its receivers say to it.
#![expect(clippy::print_stdout, reason = "what its receivers say is what it is run for")]

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::var("AMQP_URL").context("`AMQP_URL` is not set")?;
    let exchange = std::env::var("EXCHANGE").unwrap_or_else(|_| "paperboy.calls".into());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;

    // RabbitMQ's own queue of answers: consumed first, unacknowledged, on the channel that publishes.
    let own = "amq.rabbitmq.reply-to";
    let unacknowledged = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let mut said =
        channel.basic_consume(own.into(), "".into(), unacknowledged, FieldTable::default()).await?;

    let event = json!({
        "id": "evt_0192d7f2",
        "type": "annotation_content.user_update",
        "tenant": "acme",
        "data": { "annotation": { "content": [] } },
    });
    let asking = BasicProperties::default()
        .with_reply_to(own.into())
        .with_correlation_id("c1".into())
        .with_expiration("10000".into());
    let (key, body) = ("annotation_content.user_update", serde_json::to_vec(&event)?);
    channel.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), &body, asking).await?;

    let mut left = 1;
    let mut is_first = true;
    while left > 0 {
        // Longer than the expiration: Paperboy answers within it, but a call that nobody took is gone without a word.
        let next = tokio::time::timeout(std::time::Duration::from_secs(12), said.next()).await;
        let message = next.context("nobody takes calls")?.context("the channel is closed")??;
        let headers = message.properties.headers().clone().unwrap_or_default();
        if let (true, Some(AMQPValue::LongInt(replies))) = (is_first, headers.inner().get("paperboy-replies"))
        {
            // 0: nobody is asked, and this is the message that says so.
            left = (*replies).max(1);
        }
        (is_first, left) = (false, left - 1);
        println!("{}", serde_json::from_slice::<Value>(&message.data)?);
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
