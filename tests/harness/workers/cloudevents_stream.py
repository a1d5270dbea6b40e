"""CloudEvents' SDK for Python on a stream of Server-Sent Events: takes each event up to the position LAST, and prints them."""

import json
import sys
from urllib.request import Request, urlopen

from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

url, last = sys.argv[1:]
texts = []
place = ""
with urlopen(Request(url, headers={"Accept": "text/event-stream"}), timeout=180) as stream:
    for line in stream:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "id":
            place = value
        if field == "data":
            texts.append(value)
            if place == last:
                break

taken = [JSONFormat().read(CloudEvent, text) for text in texts]
try:
    JSONFormat().read(CloudEvent, texts[0].replace('"type":"', '"type":"","was":"'))
    sys.exit("the SDK takes whatever comes")
except CloudEventValidationError:
    pass
print(json.dumps([{**event.get_attributes(), "data": event.get_data()} for event in taken], default=str))
