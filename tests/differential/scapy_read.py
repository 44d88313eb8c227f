"""One JSON line for each packet of a capture: the VXLAN fields, the inner frame, and the whole built again with scapy's own checksums."""
import json
import sys

from scapy.all import ICMP, IP, TCP, UDP, Ether, IPv6, conf, rdpcap
from scapy.layers.vxlan import VXLAN

conf.verb = 0

for packet in rdpcap(sys.argv[1]):
    vxlan = packet[VXLAN]
    again = packet.copy()
    layer = again
    while layer:
        for field in ("chksum", "len", "plen"):
            if isinstance(layer, (IP, IPv6, TCP, UDP, ICMP)) and field in layer.fields:
                del layer.fields[field]
        layer = layer.payload
    print(json.dumps({
        "flags": int(vxlan.flags),
        "gpid": vxlan.gpid or 0,
        "vni": vxlan.vni,
        "inner": bytes(vxlan.payload).hex(),
        "rebuilt": bytes(again).hex(),
    }))
