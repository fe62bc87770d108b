"""The answers of a step, by group, and the same prompt over the steps: from rollouts/ and validation/STEP.jsonl."""

import hashlib
import json
import math
from collections import OrderedDict
from pathlib import Path
from statistics import fmean, stdev
from threading import Lock

from launcher.samples import GIVEN, groups, question

