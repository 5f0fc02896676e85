//! Ports inside, and the one way out.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use atoll_container_bridge::{error::Code, protocol::ExecSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{HANG, Kind, Place, block};

fn a_port_inside_is_reached(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        assert_eq!(sandbox.connect(8000).await.err().unwrap().code, Code::PortRefused);
        let early = sandbox.wait_for_port(8000, std::time::Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(early.code, Code::ProcessReadyTimeout);
        // Echoes upper case until its client has sent all.
        let server = "perl -MIO::Socket::INET -e '$s=IO::Socket::INET->new(LocalAddr=>\"127.0.0.1:8000\",Listen=>5,ReuseAddr=>1); \
                      while($c=$s->accept){while(sysread($c,$b,65536)){syswrite($c,uc $b)} close $c}'";
        sandbox.start("server", ExecSpec::shell(server)).await.unwrap();
        sandbox.wait_for_port(8000, HANG).await.unwrap();
        let stream = sandbox.connect(8000).await.unwrap();
        let (mut input, mut output) = tokio::io::split(stream);
        let text = vec![b'a'; 1_000_000];
        let send = async {
            output.write_all(&text).await.unwrap();
            output.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        let (_, got) = tokio::join!(send, input.read_to_end(&mut back));
        assert_eq!(got.unwrap(), 1_000_000);
        assert!(back.iter().all(|byte| *byte == b'A'));
        sandbox.stop().await;
    });
}

fn egress_goes_through_the_handler_and_nowhere_else(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        let calls = Arc::new(AtomicUsize::new(0));
        let serving = tokio::spawn({
            let (sandbox, calls) = (sandbox.sandbox.clone(), Arc::clone(&calls));
            async move {
                let handler = move |mut stream: tokio::io::DuplexStream| {
                    calls.fetch_add(1, Ordering::Relaxed);
                    async move {
                        let mut line = [0; 6];
                        stream.read_exact(&mut line).await.unwrap();
                        stream.write_all(&[&line[..], b"back\n"].concat()).await.unwrap();
                    }
                };
                sandbox.serve_egress(handler).await
            }
        });
        sandbox.wait_for_port(3128, HANG).await.unwrap();
        let client = "perl -MIO::Socket::INET -e '$s=IO::Socket::INET->new(PeerAddr=>\"127.0.0.1:3128\"); \
                      syswrite($s,\"hello\\n\"); print while <$s>'";
        for _ in 0..3 {
            assert_eq!(sandbox.out(client).await, "hello\nback\n");
        }
        assert!(calls.load(Ordering::Relaxed) >= 3);
        sandbox.stop().await;
        assert_eq!(serving.await.unwrap().unwrap_err().code, Code::OperationInterrupted);
    });
}

crate::support::for_each_backend! {
    a_port_inside_is_reached,
    egress_goes_through_the_handler_and_nowhere_else,
}
