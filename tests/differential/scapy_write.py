"""One JSON line for each packet that scapy builds: its bytes, the inner frame that must come out (null: none), and its mark."""
import json

from scapy.all import ARP, ICMP, IP, TCP, UDP, Dot1Q, Ether, ICMPv6EchoRequest, IPv6, Raw
from scapy.layers.vxlan import VXLAN

inner = Ether(src="ee:ee:0a:ff:2b:00", dst="ee:ee:0a:ff:6c:00")
v4 = inner / IP(src="10.255.43.6", dst="10.255.108.184")
v6 = inner / IPv6(src="fd00:a:0:2b::6", dst="fd00:a:0:6c::b8")


def with_tos(tos):
    return inner / IP(src="10.255.43.6", dst="10.255.108.184", tos=tos)


def tell(name, header, frame, mark=0, delivered=True, tos=0, expected=None):
    outer = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01") / IP(src="10.0.0.2", dst="10.0.0.1", tos=tos)
    packet = outer / UDP(sport=41000, dport=4789) / header / frame
    print(json.dumps({
        "name": name,
        "packet": bytes(packet).hex(),
        "inner": bytes(expected or frame).hex() if delivered else None,
        "mark": mark,
    }))


plain = VXLAN(flags="Instance", vni=100)
group = VXLAN(flags="Instance+G", gpid=0x1234, vni=100)

tell("udp", plain, v4 / UDP(sport=5000, dport=5001) / Raw(b"from scapy"))
tell("udp over v6", plain, v6 / UDP(sport=5000, dport=5001) / Raw(b"from scapy"))
tell("tcp", group, v4 / TCP(sport=5000, dport=5001, flags="PA", seq=7, ack=9) / Raw(b"from scapy"), 0x1234)
tell("tcp over v6", group, v6 / TCP(sport=5000, dport=5001, flags="PA", seq=7, ack=9) / Raw(b"from scapy"), 0x1234)
tell("ping", group, v4 / ICMP() / Raw(b"from scapy"), 0x1234)
tell("ping over v6", group, v6 / ICMPv6EchoRequest(data=b"from scapy"), 0x1234)
tell("vlan", group, inner / Dot1Q(vlan=5) / IP(src="10.255.43.6", dst="10.255.108.184") / UDP(), 0x1234)
tell("arp", group, inner / ARP(op="is-at", psrc="10.255.43.6", pdst="10.255.108.7"), 0x1234)
tell("group 0xffff", VXLAN(flags="Instance+G", gpid=0xffff, vni=100), v4 / UDP(), 0xffff)
tell("policy applied", VXLAN(flags="Instance+G", gpflags="A", gpid=3, vni=100), v4 / UDP(), 0x80003)
tell("don't learn", VXLAN(flags="Instance+G", gpflags="D", gpid=3, vni=100), v4 / UDP(), 0x400003)
tell("both", VXLAN(flags="Instance+G", gpflags="A+D", gpid=3, vni=100), v4 / UDP(), 0x480003)
tell("ect(0), congested outside", plain, with_tos(2) / UDP(), tos=3, expected=with_tos(3) / UDP())
tell("not ect, congested outside", plain, v4 / UDP(), tos=3, delivered=False)
tell("another vni", VXLAN(flags="Instance", vni=101), v4 / UDP(), delivered=False)
tell("no vni", VXLAN(flags="", vni=100), v4 / UDP(), delivered=False)
tell("next protocol", VXLAN(flags="Instance+NextProtocol", NextProtocol=3, vni=100), v4 / UDP(), delivered=False)
tell("reserved byte", VXLAN(flags="Instance", vni=100, reserved2=1), v4 / UDP(), delivered=False)
