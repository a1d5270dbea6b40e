"""The OpenMetrics parser of Prometheus' client for Python: reads the text that is its argument, and prints the families."""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

families = text_string_to_metric_families(sys.argv[1])
print(
    json.dumps(
        [
            {
                "name": family.name,
                "type": family.type,
                "help": family.documentation,
                "samples": [sample.name for sample in family.samples],
            }
            for family in families
        ]
    )
)
