//! Telling a stream from other queues: neither declared nor taken from.
//!
//! AMQP 0-9-1 keeps no place in a stream, every consumer gets all of it, and handing a message back closes the whole
//! connection (540, measured on 3.10.8). So nothing is forwarded from one.

use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};

use super::reply_code;

/// What people are told.
pub(super) const REFUSED: &str = "it is a stream, in which AMQP keeps nobody's place: give the source a queue of its own \
    that is bound to the same exchange";

/// Whether there is a stream of this name. RabbitMQ refuses (406, since 3.10) where a consumer that begins at a place of a
/// stream asks for another kind of queue; asked at the end of a stream, it hands out nothing that is there.
///
/// # Errors
/// The connection failed.
pub(super) async fn is_stream(connection: &Connection, name: &str) -> lapin::Result<bool> {
    let channel = connection.create_channel().await?;
    let consumed = consume_from_the_end(&channel, name).await;
    match consumed {
        Ok(()) => {
            let _ = channel.close(200, "looked".into()).await;
            Ok(true)
        }
        // Of a queue that is missing or may not be read whoever takes from it is told.
        Err(error) if reply_code(&error).is_some() && connection.status().connected() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn consume_from_the_end(channel: &Channel, name: &str) -> lapin::Result<()> {
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("next".into()));
    let consumer =
        channel.basic_consume(name.into(), "".into(), BasicConsumeOptions::default(), arguments).await?;
    channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await
}
