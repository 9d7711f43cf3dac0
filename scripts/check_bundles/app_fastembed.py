"""What `app.py` is compared with: fastembed, imported but without any model, which it downloads."""

import json
import resource

import fastembed

fastembed.TextEmbedding.list_supported_models()
print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
