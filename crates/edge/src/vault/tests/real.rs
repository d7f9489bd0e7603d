//! A release to a real server, share by share.

#[path = "../../../tests/bao/mod.rs"]
mod bao;

use bao::{Bao, PATIENCE};
use tokio::time::timeout;

use super::*;

const TWO_OF_THREE: Expected = Expected { threshold: 2, shares: 3 };

async fn send(node: &NodeIdentity, share: &[u8; SHARE_LEN]) -> Result<Answer, ReleaseError> {
    let share = SoundShare::for_test(CLUSTER, Share::from_bytes(share).expect("well formed"));
    let sealed = prove(node).await?.check(TWO_OF_THREE).await?;
    sealed.submit(order(), share, Recorded::for_test(attempt()), NOW).await
}

#[tokio::test]
async fn shares_open_a_real_server_and_a_wrong_one_does_not() {
    let mut bao = Bao::start().await;
    let name = "vault-1".parse().expect("a name");
    let node = NodeIdentity::new(CLUSTER, name, &bao.url, bao.ca_pem.as_bytes(), &[]).expect("good");

    let error = prove(&node).await.expect("proven").check(TWO_OF_THREE).await.expect_err("not initialised");
    assert!(matches!(error, ReleaseError::State(crate::vault::StateRefusal::NotInitialised)), "{error:?}");
    let keys = bao.init(3, 2).await;
    let shares: Vec<[u8; SHARE_LEN]> =
        keys.iter().map(|key| hex::decode(key).expect("hex").try_into().expect("33 bytes")).collect();

    // A wrong share is taken like a good one, and spoils the set that it completes.
    let mut wrong = shares[1];
    wrong[0] ^= 1;
    let first = send(&node, &shares[0]).await.expect("sent");
    assert_eq!((first.before.progress, first.status().map(|status| status.progress)), (0, Some(1)));
    assert!(send(&node, &wrong).await.expect("sent").combine_failed());

    // An attempt can be taken back.
    assert_eq!(send(&node, &shares[2]).await.expect("sent").status().map(|status| status.progress), Some(1));
    let mut connection = node.connect(None).await.expect("good");
    assert_eq!(connection.reset_attempt().await.expect("reset").progress, 0);

    // Two good ones open it, and then it gets no third.
    send(&node, &shares[2]).await.expect("sent");
    send(&node, &shares[0]).await.expect("sent");
    let opened = async { while !connection.seal_status().await.expect("an answer").is_open() {} };
    timeout(PATIENCE, opened).await.expect("it opens");
    let error = send(&node, &shares[1]).await.expect_err("open");
    assert!(matches!(error, ReleaseError::State(crate::vault::StateRefusal::Open)), "{error:?}");
}
