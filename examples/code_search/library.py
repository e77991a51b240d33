"""The utilities of a made-up team, as they lie in many a repository: short, useful, without a word of explanation."""

import csv
import datetime as dt
import functools
import hashlib
import heapq
import io
import itertools
import json
import math
import random
import re
import secrets
import statistics
import string
import tempfile
import threading
import time
import unicodedata
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit


def slugify(text):
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def squeeze(text):
    return " ".join(text.split())


def ellipsize(text, width):
    if len(text) <= width:
        return text
    return text[: width - 1].rsplit(" ", 1)[0].rstrip() + "…"


def snake_case(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def camel_case(name):
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def dedent_block(text):
    lines = text.splitlines()
    margins = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    margin = min(margins, default=0)
    return "\n".join(line[margin:] for line in lines)


def levenshtein(left, right):
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def is_palindrome(text):
    letters = [c for c in text.casefold() if c.isalnum()]
    return letters == letters[::-1]


def count_words(text):
    return Counter(re.findall(r"\w+", text.lower()))


def mask_email(address):
    user, _, domain = address.partition("@")
    return f"{user[:1]}***@{domain}"


def strip_tags(html):
    return re.sub(r"<[^>]+>", "", html)


def caesar(text, shift):
    alphabet = string.ascii_lowercase
    turned = alphabet[shift % 26 :] + alphabet[: shift % 26]
    return text.lower().translate(str.maketrans(alphabet, turned))


def roman(number):
    out = []
    for value, sign in zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        ("M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"),
        strict=True,
    ):
        times, number = divmod(number, value)
        out.append(sign * times)
    return "".join(out)


def human_bytes(size):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def parse_duration(text):
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(n) * units[u] for n, u in re.findall(r"(\d+)([smhd])", text))


def ago(then, now):
    seconds = int((now - then).total_seconds())
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            amount = seconds // length
            return f"{amount} {unit}{'s' if amount > 1 else ''} ago"
    return "just now"


def is_leap(year):
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def easter(year):
    a, b, c = year % 19, year // 100, year % 100
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return dt.date(year, month, day + 1)


def next_weekday(day, weekday):
    return day + dt.timedelta((weekday - day.weekday() - 1) % 7 + 1)


def add_months(day, months):
    years, month = divmod(day.month - 1 + months, 12)
    year = day.year + years
    longest = (29 if is_leap(year) else 28) if month == 1 else 30 if month in (3, 5, 8, 10) else 31
    return day.replace(year=year, month=month + 1, day=min(day.day, longest))


def workdays(first, last):
    days = (first + dt.timedelta(i) for i in range((last - first).days + 1))
    return sum(day.weekday() < 5 for day in days)


def age(born, today):
    return today.year - born.year - ((today.month, today.day) < (born.month, born.day))


def quarter(day):
    return f"{day.year}-Q{(day.month + 2) // 3}"


def chunked(items, size):
    items = iter(items)
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def windowed(items, size):
    window = deque(maxlen=size)
    for item in items:
        window.append(item)
        if len(window) == size:
            yield tuple(window)


def flatten(nested):
    for item in nested:
        if isinstance(item, list | tuple):
            yield from flatten(item)
        else:
            yield item


def unique(items):
    return list(dict.fromkeys(items))


def partition(items, test):
    sides = [], []
    for item in items:
        sides[not test(item)].append(item)
    return sides


def group_by(items, key):
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def interleave(*lists):
    missing = object()
    mixed = itertools.chain.from_iterable(itertools.zip_longest(*lists, fillvalue=missing))
    return [item for item in mixed if item is not missing]


def rotate(items, steps):
    steps %= len(items)
    return items[steps:] + items[:steps]


def transpose(rows):
    return [list(column) for column in zip(*rows, strict=True)]


def top(items, count, key=None):
    return heapq.nlargest(count, items, key=key)


def merge_sorted(*lists):
    return list(heapq.merge(*lists))


def deep_merge(base, over):
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = deep_merge(merged[key], value) if both else value
    return merged


def dig(data, path, default=None):
    for key in path.split("."):
        if not isinstance(data, dict) or key not in data:
            return default
        data = data[key]
    return data


def invert(mapping):
    return {value: key for key, value in mapping.items()}


def without(mapping, *keys):
    return {key: value for key, value in mapping.items() if key not in keys}


def diff_keys(old, new):
    changed = {key for key in old.keys() & new.keys() if old[key] != new[key]}
    return new.keys() - old.keys(), old.keys() - new.keys(), changed


def clamp(value, low, high):
    return max(low, min(high, value))


def lerp(start, end, share):
    return start + (end - start) * share


def round_to(value, step):
    return round(value / step) * step


def is_prime(number):
    return number > 1 and all(number % d for d in range(2, math.isqrt(number) + 1))


def primes_below(limit):
    sieve = bytearray([1]) * limit
    sieve[:2] = b"\0" * min(2, limit)
    for n in range(2, math.isqrt(limit) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, limit, n)))
    return [n for n, kept in enumerate(sieve) if kept]


def fibonacci():
    a, b = 0, 1
    while True:
        yield a
        a, b = b, a + b


def collatz(number):
    steps = 0
    while number != 1:
        number = 3 * number + 1 if number % 2 else number // 2
        steps += 1
    return steps


def digits(number, base):
    out = []
    while number:
        number, digit = divmod(number, base)
        out.append(digit)
    return out[::-1] or [0]


def luhn(card):
    total = 0
    for place, digit in enumerate(reversed([int(c) for c in card if c.isdigit()])):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def moving_average(values, size):
    return [sum(window) / size for window in windowed(values, size)]


def z_scores(values):
    mean, spread = statistics.fmean(values), statistics.pstdev(values)
    return [(value - mean) / spread for value in values]


def percentile(values, share):
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def haversine_km(lat1, lon1, lat2, lon2):
    p1, p2 = math.radians(lat1), math.radians(lat2)
    dl = math.radians(lon2 - lon1)
    a = math.sin((p2 - p1) / 2) ** 2 + math.cos(p1) * math.cos(p2) * math.sin(dl / 2) ** 2
    return 2 * 6371 * math.asin(math.sqrt(a))


def polygon_area(points):
    pairs = zip(points, points[1:] + points[:1], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs)) / 2


def overlaps(a, b):
    return a[0] < b[1] and b[0] < a[1]


def merge_intervals(spans):
    merged = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return merged


def hex_to_rgb(code):
    code = code.lstrip("#")
    return tuple(int(code[i : i + 2], 16) for i in (0, 2, 4))


def luminance(r, g, b):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (r / 255, g / 255, b / 255)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def net_of_tax(gross, rate):
    return round(gross / (1 + rate), 2)


def instalment(loan, yearly_rate, months):
    monthly = yearly_rate / 12
    return loan / months if not monthly else loan * monthly / (1 - (1 + monthly) ** -months)


def split_bill(cents, people):
    share, rest = divmod(cents, people)
    return [share + (place < rest) for place in range(people)]


def retry(times, pause_s):
    def decorate(function):
        @functools.wraps(function)
        def tried(*args, **kwargs):
            for attempt in range(times):
                try:
                    return function(*args, **kwargs)
                except OSError:
                    if attempt == times - 1:
                        raise
                    time.sleep(pause_s * 2**attempt)
            return None

        return tried

    return decorate


def timed(function):
    @functools.wraps(function)
    def clocked(*args, **kwargs):
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            print(f"{function.__name__}: {time.perf_counter() - start:.3f} s")

    return clocked


def debounce(wait_s, function):
    pending = None

    def called(*args):
        nonlocal pending
        if pending:
            pending.cancel()
        pending = threading.Timer(wait_s, function, args)
        pending.start()

    return called


def once(function):
    done, kept = False, None

    def called(*args):
        nonlocal done, kept
        if not done:
            done, kept = True, function(*args)
        return kept

    return called


class LruCache:
    def __init__(self, room):
        self.room, self.kept = room, OrderedDict()

    def get(self, key):
        if key in self.kept:
            self.kept.move_to_end(key)
        return self.kept.get(key)

    def put(self, key, value):
        self.kept[key] = value
        self.kept.move_to_end(key)
        if len(self.kept) > self.room:
            self.kept.popitem(last=False)


class TokenBucket:
    def __init__(self, per_s, burst):
        self.per_s, self.burst = per_s, burst
        self.left, self.at = burst, time.monotonic()

    def allow(self):
        now = time.monotonic()
        self.left = min(self.burst, self.left + (now - self.at) * self.per_s)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


def sha256_file(path):
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path, text):
    path = Path(path)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as draft:
        draft.write(text)
    Path(draft.name).replace(path)


def tail(path, count):
    with Path(path).open() as lines:
        return list(deque(lines, count))


def newest_file(folder, pattern="*"):
    return max(Path(folder).glob(pattern), key=lambda path: path.stat().st_mtime, default=None)


def folder_size(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def same_content(folder):
    found = defaultdict(list)
    for path in Path(folder).rglob("*"):
        if path.is_file():
            found[sha256_file(path)].append(path)
    return [paths for paths in found.values() if len(paths) > 1]


def csv_to_dicts(text):
    return list(csv.DictReader(io.StringIO(text)))


def json_lines(path):
    with Path(path).open() as lines:
        return [json.loads(line) for line in lines if line.strip()]


def add_params(url, **params):
    parts = urlsplit(url)
    query = urlencode({**dict(parse_qsl(parts.query)), **params})
    return urlunsplit(parts._replace(query=query))


def password(length):
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))


def weighted_choice(options, seed):
    return random.Random(seed).choices(list(options), list(options.values()))[0]


def reservoir(stream, size, seed):
    chance, kept = random.Random(seed), []
    for seen, item in enumerate(stream, 1):
        if len(kept) < size:
            kept.append(item)
        elif (place := chance.randrange(seen)) < size:
            kept[place] = item
    return kept


def shortest_path(edges, start, goal):
    queue, came = deque([start]), {start: None}
    while queue:
        node = queue.popleft()
        if node == goal:
            path = []
            while node is not None:
                path.append(node)
                node = came[node]
            return path[::-1]
        for near in edges.get(node, ()):
            if near not in came:
                came[near] = node
                queue.append(near)
    return None


def topological(needs):
    order, state = [], {}

    def visit(node):
        if state.get(node) == "open":
            raise ValueError(f"a cycle through {node}")
        if node not in state:
            state[node] = "open"
            for each in needs.get(node, ()):
                visit(each)
            state[node] = "done"
            order.append(node)

    for node in needs:
        visit(node)
    return order


def flood_fill(grid, row, column, colour):
    old = grid[row][column]
    spots = [(row, column)] if old != colour else []
    while spots:
        r, c = spots.pop()
        if 0 <= r < len(grid) and 0 <= c < len(grid[0]) and grid[r][c] == old:
            grid[r][c] = colour
            spots += [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]


def bisect_first(low, high, holds):
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def run_length(text):
    return [(sign, len(list(run))) for sign, run in itertools.groupby(text)]
