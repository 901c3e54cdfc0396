"""Spellings of targets that webhooks must not reach, for a listener on loopback at a port."""

from __future__ import annotations

from collections.abc import Iterator

LOOPBACK = (
    "127.0.0.1", "127.1", "127.0.1", "127.000.000.001", "127.0.0.01", "0127.0.0.1", "0177.0.0.1", "0177.0.0.01", "0177.0.1", "0177.1",
    "00000000177.0.0.1", "0x7f.0.0.1", "0x7F.1", "0x7f.0x0.0x0.0x1", "0x7f000001", "0X7F000001", "0x7f.0.1", "0x000000007f000001",
    "2130706433", "02130706433", "017700000001", "0o17700000001", "4425673729", "127.0.0.1.", "127.0.0.1..", "0x7f000001.", "127.127.127.127",
    "127.0.0.2", "127.255.255.254", "127.0.0.0", "0", "0.0.0.0", "0.0", "0.0.0", "0.0.0.1", "00", "0x0", "localhost", "LOCALHOST", "localhost.",  # noqa: S104
    "LocalHost", "foo.localhost", "foo.localhost.", "localhost..", ".localhost", "127.0.0.1%00", "127.0.0.1%20", "127%2e0%2e0%2e1", "%31%32%37.0.0.1",
    "%6c%6f%63alhost", "127.0.0.1%2f", "local%00host", "\uff11\uff12\uff17.\uff10.\uff10.\uff11", "\u2460\u2461\u2466.0.0.1", "127\u30020\u30020\u30021",
    "127\uff0e0\uff0e0\uff0e1", "127\uff610\uff610\uff611", "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3", "loc\u00adalhost", "local\u200bhost", "\u0661\u0662\u0667.0.0.1",
    "\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54", "ⅼocalhost", "127.0.0.1\t", " 127.0.0.1", "127.0.0.1 ", "127.0.0.1\n", "127.0.0.1\r\nX: y", "127.0.0.1\x00",
    "\x00127.0.0.1", "127.0.0.1\\", "127,0,0,1", "127.0.0.1;", "127.0.0.1|x", "127.0.0.1'", '127.0.0.1"', "(127.0.0.1)", "{127.0.0.1}", "-127.0.0.1", "+127.0.0.1",
    "127.0.0.1_", "_127.0.0.1", "127.0.0.256", "127.0.0.1.0", "256.127.0.0.1", "127.0x0.0.1", "1e0.0.0.1", "127.0.0.0x1", "127.0.0.01x", "~127.0.0.1",
)  # fmt: skip
IPV6 = (
    "::1", "0:0:0:0:0:0:0:1", "0000:0000:0000:0000:0000:0000:0000:0001", "0::1", "::0001", "::", "0:0:0:0:0:0:0:0", "::ffff:127.0.0.1", "::FFFF:7f00:1", "::ffff:7f00:0001",
    "0:0:0:0:0:ffff:127.0.0.1", "0:0:0:0:0:ffff:7f00:1", "::127.0.0.1", "::7f00:1", "0:0:0:0:0:0:7f00:1", "::ffff:0:127.0.0.1", "::ffff:0:7f00:1", "64:ff9b::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1", "64:ff9b:1:ffff::127.0.0.1", "2002:7f00:1::", "2002:7f00:0001::1", "2002:a00:1::", "2002:c0a8:101::1", "2002:a9fe:a9fe::", "2001::1", "2001:0:7f00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "2001:10::1", "2001:20::1", "2001:2::1", "2001:db8::1", "3fff::1", "5f00::1", "100::1", "100:0:0:1::1", "fc00::1", "fd00::1", "fd00:ec2::254", "fdff:ffff::1", "fe80::1", "fe80::a9fe:a9fe",
    "febf::1", "fec0::1", "feff::1", "ff00::1", "ff02::1", "ff05::2", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0a00:1", "::ffff:192.168.0.1", "::10.0.0.1",
    "::169.254.169.254", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "4000::1", "8000::1", "e000::1", "::2", "::ffff:0.0.0.0", "::0.0.0.0", "1::1", "200::1", "400::1", "800::1", "1000::1",
    "::1%lo", "::1%25lo", "::1%1", "fe80::1%eth0", "fe80::1%25eth0", "::1%", "::ffff:127.0.0.1%25lo", "::1%00", "0:0:0:0:0:0:0:1%1", "::g", ":1", ":::1", "1:2:3", "127.0.0.1", "localhost",
    "::ffff:127.1", "::ffff:0x7f.0.0.1", "::ffff:0177.0.0.1", "[::1]", "::1]", "v1.::1", "v1.1",
)  # fmt: skip
PRIVATE = (
    "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254", "192.168.0.1", "192.168.255.255", "169.254.169.254", "169.254.0.1", "169.254.170.2", "100.64.0.1", "100.127.255.254",
    "100.100.100.200", "192.0.0.1", "192.0.0.192", "192.0.0.170", "192.0.2.1", "198.51.100.7", "203.0.113.9", "192.88.99.1", "198.18.0.1", "198.19.255.255", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255", "168.63.129.16", "192.31.196.1", "192.52.193.1", "192.175.48.1", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "0xa9.0xfe.0xa9.0xfe", "169.254.43518", "0xa9fe.43518", "10.1", "167772161",
    "012.0.0.1", "0xa.0.0.1", "192.168.257", "3232235521",
)  # fmt: skip
AUTHORITIES = (
    "user@{host}:{port}", "user:pass@{host}:{port}", "@{host}:{port}", ":@{host}:{port}", "example.com@{host}:{port}", "example.com:80@{host}:{port}", "example.com%40{host}:{port}", "example.com\\@{host}:{port}",
    "{host}:{port}\\@example.com", "{host}:{port}#@example.com", "{host}:{port}?@example.com@", "example.com:80@@{host}:{port}", "example.com#@{host}:{port}", "{host}:{port}%23@example.com", "{host}%3a{port}",
    "{host}::{port}", "{host}:{port}:{port}", "{host}:+{port}", "{host}:-{port}", "{host}:0{port}", "{host}: {port}", "{host}:{port} ", "{host}:{port}\t", "{host}:0x{port:x}", "{host}:{port}.0", "{host}:٣٠", "{host}:",
    "{host}:0", "{host}:65536", "{host}:99999", "{host}:999999999999", "{host}:{port}\r\nHost: example.com", "\\{host}:{port}", "/{host}:{port}", "//{host}:{port}", "\t{host}:{port}", "{host}\\:{port}",
)  # fmt: skip
SCHEMES = (
    "file:///etc/passwd", "FILE:///etc/passwd", "gopher://{at}/_x", "dict://{at}/x", "ftp://{at}/", "ldap://{at}/", "unix:///var/run/docker.sock", "http+unix://%2fvar%2frun%2fdocker.sock/", "ws://{at}/", "wss://{at}/",
    "jar:http://{at}!/", "data:text/plain,x", "javascript:alert(1)", "//{at}/", "{at}", "http:{at}", "http:/{at}", "http:///{at}", "http://", "https://", "http:\\\\{at}\\", "hTTp:/\\{at}", " http://{at}", "\thttp://{at}",
    "http://\t{at}", "ht\ntp://{at}", "http\u0000://{at}", "httpx://{at}", "http://{at}/\r\nX: y", "http://{at}/ b", "http://{at}/\x00", "http://{at}/ü", "http://{at}/%", "http://{at}/%zz", "http://{at}/#f", "", "x", "view-source:http://{at}/",
    "http://{at}\u2044x", "netdoc:///etc/passwd", "ssh2.exec://{at}", "php://filter", "sftp://{at}", "tftp://{at}", "smb://{at}", "about:blank", "blob:http://{at}/", "redis://{at}",
)  # fmt: skip


def urls(port: int) -> Iterator[str]:
    """Yield every spelling that must be refused, each once."""
    seen = set[str]()
    for url in _urls(port):
        if url not in seen:
            seen.add(url)
            yield url


def _urls(port: int) -> Iterator[str]:
    for host in (*LOOPBACK, *PRIVATE):
        yield f"http://{host}:{port}/x"
        yield f"https://{host}/x"
    for host in IPV6:
        yield f"http://[{host}]:{port}/x"
        yield f"http://{host}:{port}/x"
        yield f"http://[{host}]/x"
    for authority in AUTHORITIES:
        yield f"http://{authority.format(host='127.0.0.1', port=port)}/x"
    for scheme in SCHEMES:
        yield scheme.format(at=f"127.0.0.1:{port}")
