//! What each party may do at a real RabbitMQ, and what is refused to it.

mod support;

use std::sync::LazyLock;

use holdfast_core::topology::{Exchange, conductor_queue, orders_queue, peers_queue, routing_key, sentinel_queue};
use holdfast_edge::broker::{BrokerEvent, Outgoing, PublishError, Trouble};
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, ExchangeKind};
use support::hostile::{Hostile, Refused};
use support::rabbit::{Rabbit, parties, settings};
use support::{OTHER, PROD, name, wait_for};

static RABBIT: LazyLock<Rabbit> = LazyLock::new(|| Rabbit::start("boundaries", &parties()));

const ACCESS_REFUSED: u16 = 403;
const PRECONDITION_FAILED: u16 = 406;

fn code<T>(result: Result<T, Refused>) -> Option<u16> {
    result.err().map(|refused| refused.code)
}

#[tokio::test]
async fn a_report_reaches_peers_and_sentinel_and_no_other_cluster() {
    let (one, mut events) = RABBIT.client("custodian-1", &[peers_queue(&name("custodian-1"))]);
    let report = Outgoing {
        exchange: Exchange::Reports,
        routing_key: routing_key(PROD, &name("custodian-1"), "heartbeat"),
        body: b"a report of its own".to_vec(),
    };
    one.publish_confirmed(report.clone()).await.expect("its own");
    let delivery = wait_for(&mut events, "its report", |event| match event {
        BrokerEvent::Delivery(delivery) if delivery.body == Ok(report.body.clone()) => Some(delivery),
        _ => None,
    })
    .await;
    assert_eq!(delivery.user_id.as_deref(), Some("custodian-1"));
    assert_eq!((delivery.exchange.as_str(), &delivery.routing_key), ("holdfast.reports", &report.routing_key));
    delivery.ack();
    let admin = Hostile::login(&RABBIT, "admin").await;
    assert!(admin.count(&peers_queue(&name("custodian-2"))).await.0 > 0);
    assert!(admin.count(&sentinel_queue(&name("sentinel-1"))).await.0 > 0);
    assert_eq!(admin.count(&peers_queue(&name("custodian-3"))).await.0, 0);
    assert_eq!(one.close().await, 0);
}
