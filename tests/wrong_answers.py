"""Answers to the exercises that are usual mistakes, each with words of what the check says of it."""

# Attribution of two layers by hand, from which one factor each is left out below.
_PASSED_ON = "((a > 0).double() * (slope @ model[0].weight.T))"
_BY_HAND = f"""
def by_hand(model, x, slope):
    a = model[0](x)
    b = model[2](a.relu())
    b_slope = {_PASSED_ON} @ model[2].weight.T
    gain = (b > 0).double() * model[4].weight @ model[2].weight
    jumps = (slope @ model[0].weight.T * gain).abs(), (b_slope * model[4].weight).abs()
    return [each[1:][(v[1:] > 0) != (v[:-1] > 0)].sum() for each, v in zip(jumps, (a, b))]
"""

WRONG = {
    ("00", 1): [("def faster(t):\n    return path(t)", "does not end where a whole one ends")],
    ("00", 2): [("""
def mouth_to_eyes(total):
    return (total[6:].mean() / total[:6].mean()).item()
""", "the ratio is not"), ("""
def mouth_to_eyes(total):
    eye = torch.tensor(["eye" in name for name in names])
    return (total[~eye].mean() / total[eye].mean()).item()
""", "neither an eye nor"),
                ("def mouth_to_eyes(total):\n    return 2 / 3", "the ratio is not 0.67")],
    ("00", 3): [("""
def per_change(motion, count=41):
    moving = paths.picture(picture, box, **motion, **models.FACE_INPUT)
    t = torch.linspace(0, 0.3, count, dtype=torch.float64, device=run.device)
    change = (moving(t).diff(dim=0) / (t[1] - t[0])).square().mean().sqrt().item()
    return attribute(face, moving, t, outputs=lambda answer: answer.landmarks[:, :1]).total.item() / (0.3 * change)
""", "fewer \\*and\\* smaller")],
    ("01", 1): [("def my_smp(z, h):\n    return second_differences(z, h).abs().sum().item()", "Σ\\|D\\|"),
                ("""
def my_smp(z, h):
    D = second_differences(z, h).abs()
    D = D * (D > 5 * D.median())
    peak = (D[1:-1] >= D[:-2]) & (D[1:-1] > D[2:])
    return D[1:-1][peak].sum().item()
""", "of the truth|three quarters"),
                ("""
def my_smp(z, h):
    D = second_differences(z, h)
    return D[D.abs() > 5 * 1.4826 * D.abs().median() / h].abs().sum().item()
""", "hardly anything stands out"),
                ("""
def my_smp(z, h):
    D = second_differences(z, h)
    return D[D.abs() > 5 * 1.4826 * D.abs().median()].abs().sum().item()
""", "compared with its own surroundings"), ("""
def my_smp(z, h):
    D = second_differences(z, h)
    rest = D[4:-4] - torch.stack([D[4 + k:len(D) - 4 + k] for k in (-4, -3, -2, 2, 3, 4)]).quantile(0.5, dim=0)
    return rest[rest.abs() > 5 * rest.std()].abs().sum().item()
""", "not a robust one")],
    ("01", 2): [("def fool(t):\n    return (t - 10).abs()", "so the curve has a kink"),
                ("def fool(t):\n    return torch.sin(t)", "it is not fooled yet"),
                ("def fool(t):\n    return torch.nn.functional.softplus(t - 10, beta=1000)", "it is fooled as well")],
    ("01", 3): [("""
def pair_reading(distance):
    places, jumps = torch.tensor([5.003, 5.003 + distance]).double(), torch.tensor([1.0, -1.0]).double()
    return smp(signals.hinges(grid, places, jumps)[0]).item()
""", "is the spacing passed on"),
                ("""
def pair_reading(distance):
    places, jumps = torch.tensor([5.003, 5.003 + distance]).double(), torch.tensor([1.0, 1.0]).double()
    return smp(signals.hinges(grid, places, jumps)[0], 0.01).item()
""", "the less is read|opposite signs")],
    ("02", 1): [("""
def absolute_smp(mean, old):
    return propagation.two_slope_smp(mean, variance, lam, duration, smp_in=old).item()
""", "about half"), ("""
def absolute_smp(mean, old):
    return 2 * old + 2 * propagation.two_slope_smp(mean, variance, lam, duration).item()
""", "is too much")],
    ("02", 2): [("def halving_bias():\n    return 0.5", "too close to 0"),
                ("def halving_bias():\n    return 2.0", "too far from 0")],
    ("02", 3): [("""
def maxima_rate(lam, gamma):
    return math.sqrt(gamma / lam) / math.pi

def count_maxima(x):
    rising = x.diff(dim=-1) > 0
    return (rising[:, :-1] & ~rising[:, 1:]).sum(-1)
""", "minima are counted"), ("""
def maxima_rate(lam, gamma):
    return math.sqrt(gamma / lam) / (2 * math.pi)

def count_maxima(x):
    rising = x.diff(dim=-1) > 0
    return (rising[:, :-1] ^ rising[:, 1:]).sum(-1)
""", "have 4 and 7 maxima"), ("""
def maxima_rate(lam, gamma):
    return math.sqrt(lam) / (2 * math.pi)

def count_maxima(x):
    rising = x.diff(dim=-1) > 0
    return (rising[:, :-1] & ~rising[:, 1:]).sum(-1)
""", "the formula says")],
    ("02", 4): [("def with_memory(memory):\n    return r", "not λ|is not periodic any more"),
                ("def with_memory(memory):\n    return torch.cos(lags / length_scale) * 2", "the variance is not 1"),
                ("""
def with_memory(memory):
    return torch.exp(-((lags / memory) ** 2) / 2) * torch.cos(math.sqrt(lam) * lags)
""", "not λ")],
    ("03", 1): [("""
def law_by_hand(phi, mean, sigma, lam, duration):
    z = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    density = torch.exp(-z**2 / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    low, middle, high = ((phi(mean + d + z) * density).sum() for d in (-0.05, 0, 0.05))
    return duration * lam * (low - 2 * middle + high) / 0.05**2
""", "how do the mean and σ enter"),
                ("def law_by_hand(phi, mean, sigma, lam, duration):\n    return -1.0", "bends upwards"),
                ("""
def law_by_hand(phi, mean, sigma, lam, duration):
    z = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    density = torch.exp(-z**2 / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    low, middle, high = ((phi(mean + d + sigma * z) * density).sum() for d in (-0.001, 0, 0.001))
    return duration * lam * (low - 2 * middle + high) / 0.001**2
""", "closer than the step of the mean")],
    ("03", 2): [("""
def raised(m):
    return propagation.max_pool_smp(covariance(4, 0.0), lam * covariance(4, 0.0), duration,
                                    torch.full((4,), m, dtype=torch.float64)).item()
""", "no change of lead is left")],
    ("03", 3): [("def both_sides(V):\n    return 0.2, 0.2", "is the lower one"),
                ("def both_sides(V):\n    return -1 / math.sqrt(4 * math.pi), -1 / math.sqrt(4 * math.pi)", "ρ = 0.6")],
    ("03", 4): [("""
def by_direction(height, width, angle):
    moved = signals.picture_covariances(height, width, length_scale=pixel_length,
                                        velocity=(5**0.5 * math.sin(angle), 5**0.5 * math.cos(angle)))
    return propagation.max_pool_smp(*moved, duration).item()
""", "is 0 straight down"), ("""
def by_direction(height, width, angle):
    moved = signals.picture_covariances(height, width, length_scale=pixel_length,
                                        velocity=(math.cos(angle), math.sin(angle)))
    return propagation.max_pool_smp(*moved, duration).item()
""", "is the speed √5")],
    ("04", 1): [("def three_cases():\n    return 2.0, 8.0, 3.2", "and there are four"),
                ("def three_cases():\n    return 8.0, 0.0, 3.2", "all weights have one sign"),
                ("def three_cases():\n    return 8.0, 8.0, 8.0", "a part of the jumps cancels")],
    ("04", 2): [("def average_pool_smp(kernel, bias):\n    return 4 * behind_relu",
                 "which weights does an average have"),
                ("def average_pool_smp(kernel, bias):\n    return 2 * behind_relu", "how long is a picture's path"),
                ("def average_pool_smp(kernel, bias):\n    return behind_pool[:1]", "one number for each"),
                ("def average_pool_smp(kernel, bias):\n    return behind_relu", "are bias, C and L all in it")],
    ("04", 3): [("""
def pool_smp(sigmas, c=0):
    return propagation.max_pool_smp(V_out[c], L_out[c], half).item()
""", "of section 4's prediction"), ("""
def pool_smp(sigmas, c=0):
    means = torch.full((4,), sigmas, dtype=torch.float64)
    V, L = (pad(part[c], (0, 1, 0, 1)) for part in (V_out, L_out))
    return propagation.max_pool_smp(V, L, half, pad(means, (0, 1))).item()
""", "of section 4's prediction")],
    ("05", 1): [("""
def averaged(model):
    model[2] = model[5] = nn.AvgPool2d(2)
    return model

def what_is_left(before, after, path, t):
    return 0.12, 1.06
""", "not a copy"), ("""
def averaged(model):
    copied = copy.deepcopy(model)
    copied[2] = nn.AvgPool2d(2)
    return copied

def what_is_left(before, after, path, t):
    return 0.12, 1.06
""", "is still there"), ("""
def averaged(model):
    copied = copy.deepcopy(model)
    copied[2] = copied[5] = nn.AvgPool2d(2)
    return copied

def what_is_left(before, after, path, t):
    first, second = attribute(before, path, t), attribute(after, path, t)
    return float(second.total / first.total), distance(second) / distance(first)
""", "the share of the distance")],
    ("05", 2): [("""
def deadband(x):
    return torch.where(x.abs() > 0.2, x - 0.2 * x.sign(), 0 * x)
""", "not certified"), ("""
def deadband(x):
    return torch.relu(x - 0.2) + torch.relu(-x - 0.2)
""", "right above 0"), ("""
def deadband(x):
    return nn.functional.softshrink(x, 0.2)

def deadband_smp():
    return 2
""", "from -1 to 1")],
    ("05", 3): [(_BY_HAND.replace(_PASSED_ON, "slope @ model[0].weight.T"), "does a slope pass"),
                (_BY_HAND.replace("(b > 0).double() * ", ""), "does a kink pass"),
                (_BY_HAND.replace(" * gain", "").replace(" * model[4].weight)", ")"), "slope or the gain missing")],
    ("05", 4): [("""
def winning(count, until=0.4):
    with torch.no_grad():
        a = copy.deepcopy(network).double().conv1(path(torch.linspace(0, until, count, dtype=torch.float64)))
        pooled = network.pool1(a)
    return pooled.numel() / a.numel()
""", "the share should fall"), ("""
def winning(count, until=0.4):
    with torch.no_grad():
        a = copy.deepcopy(network).double().conv1(path(torch.linspace(0, until, count, dtype=torch.float64)))
    return ((a[1:] > 0) != (a[:-1] > 0)).sum().item()
""", "a share is between")],
    ("06", 1): [("def smp_of_budget(weights, depth):\n    return 2 * depth * weights**0.25", "got all the weights"),
                ("def smp_of_budget(weights, depth):\n    return 2 * depth * math.sqrt(weights / depth)",
                 "is too much"),
                ("def smp_of_budget(weights, depth):\n    return 2 * (weights / depth) ** 0.25", "is too little")],
    ("06", 2): [("def biased(beta):\n    return math.exp(-(beta**2) / 2)", "one and the same bias"),
                ("def biased(beta):\n    return 1 / (1 + beta**2)", "is less than is left"),
                ("def biased(beta):\n    return 1 / (1 + beta**2) ** 0.25", "is more than is left")],
    ("06", 3): [("""
def predict_by_hand(model, x, slope, t):
    into, between, readout = (model[k].weight.square().mean() for k in (0, 2, 4))
    s, lam = into * x.square().sum(1), into * slope.square().sum(1)
    gains = (200 * between * readout / 2, readout)
    return [torch.trapezoid(200 * lam / (2 * math.pi * s).sqrt(), t) * (2 / math.pi * gain).sqrt() for gain in gains]
""", "on a circle it would be right"), ("""
def predict_by_hand(model, x, slope, t):
    into, between, readout = (model[k].weight.square().mean() for k in (0, 2, 4))
    s, lam, c = into * x.square().sum(1), into * slope.square().sum(1), into * (x * slope).sum(1)
    gains = (200 * between * readout / 2, readout)
    return [torch.trapezoid(200 * (lam - c**2 / s) / (2 * math.pi * s).sqrt(), t) * gain.sqrt() for gain in gains]
""", "mean magnitude of a gain"), ("""
def predict_by_hand(model, x, slope, t):
    into, between, readout = (model[k].weight.square().mean() for k in (0, 2, 4))
    s, lam, c = into * x.square().sum(1), into * slope.square().sum(1), into * (x * slope).sum(1)
    gains = (200 * between * readout, readout)
    return [torch.trapezoid(200 * (lam - c**2 / s) / (2 * math.pi * s).sqrt(), t) * (2 / math.pi * gain).sqrt()
            for gain in gains]
""", "to the gain"), ("""
def predict_by_hand(model, x, slope, t):
    into, between, readout = (model[k].weight.square().mean() for k in (0, 2, 4))
    s, lam, c = into * x.square().sum(1), into * slope.square().sum(1), into * (x * slope).sum(1)
    one = torch.trapezoid(200 * (lam - c**2 / s) / (2 * math.pi * s).sqrt(), t) * (2 / math.pi * readout).sqrt()
    return one * (200 * between / 2).sqrt(), one * (200 * between).sqrt()
""", "what does the first ReLU do")],
    ("06", 4): [("""
def above_the_law(model, path, times):
    return float(predict_network(model, path, times).total[0] / attribute(model, path, times).total[0])
""", "is it measured over predicted"), ("""
def above_the_law(model, path, times):
    return float(attribute(model, path, times).total[0]) / (2 * 2 * 16)
""", "of the model's own weights")],
    ("07", 1): [("""
def two_ratios(curve, step):
    read = smp(curve, step)
    return [(read / curve.diff(n=order, dim=1).abs().sum(1)).mean() for order in (2, 1)]
""", "which part lacks the step"), ("""
def two_ratios(curve, step):
    read, bending = smp(curve, step), curve.diff(n=2, dim=1).abs().sum(1) / step
    return (read / bending).mean(), (read / (curve.diff(dim=1).abs().sum(1) / step)).mean()
""", "has the distance the step in it"), ("""
def two_ratios(curve, step):
    read, bending = smp(curve, step), curve.diff(n=2, dim=1).abs().sum(1) / step
    return (read / bending).mean(), (read / (curve.amax(1) - curve.amin(1))).mean()
""", "to and fro")],
    ("07", 2): [("""
def compare(first, second):
    each = first - second
    return each.mean(), each.std(ddof=1), math.sqrt((first.var() + second.var()) / len(first))
""", "single differences scatter"), ("""
def compare(first, second):
    apart = math.sqrt((first.var(ddof=1) + second.var(ddof=1)) / len(first))
    return first.mean() - second.mean(), apart, apart
""", "Is it that of the differences"), ("""
def compare(first, second):
    each, n = first - second, len(first)
    return each.mean(), each.std(ddof=1) / math.sqrt(n), (first.std() + second.std()) / math.sqrt(n)
""", "variances add")],
    ("07", 3): [("""
def my_regressor():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 2))
""", "something in it switches"), ("""
def my_regressor():
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.Tanh(), nn.Linear(8, 2))
""", "has not learned its task")],
    ("07", 4): [("""
def stages(place, parts):
    networks = [network_of(kinds[0], place, part) for part in parts]
    totals = [float(attribute(one.model, one.recipe.path(), times).total.sum()) for one in networks]
    return [(one.test_error, total, total) for one, total in zip(networks, totals)]
""", "is it the mean of both"), ("""
def stages(place, parts):
    networks = [network_of(kinds[0], place, part) for part in reversed(parts)]
    totals = [float(attribute(one.model, one.recipe.path(), times).total.mean()) for one in networks]
    return [(one.test_error, total, total) for one, total in zip(networks, totals)]
""", "in the order of the parts")],
    ("08", 1): [("def called_smooth():\n    return []", "another than you say"),
                ("def called_smooth():\n    return [0.001, 0.01]", "another than you say")],
    ("08", 2): [("def two_aucs(judge):\n    return 0.7, 0.6", "which number is which"),
                ("def two_aucs(judge):\n    return 0.9, 0.95", "are whole networks held out"),
                ("""
def two_aucs(judge):
    seen = judge.fit(pool_rows, pools.truth).predict(pool_rows)
    apart = cross_val_predict(judge, pool_rows, pools.truth, groups=pools.network, cv=GroupKFold(5))
    return roc_auc_score(pools.truth, apart), roc_auc_score(pools.truth, seen)
""", "that was not fitted to that curve")],
    ("08", 3): [("def my_feature(curve, spacing):\n    return np.abs(np.diff(curve, 2)).sum() / spacing",
                 "with the scale"),
                ("def my_feature(curve, spacing):\n    return spacing", "with the speed"),
                ("def my_feature(curve, spacing):\n    return np.ptp(curve) / curve.std()", "well enough")],
    ("08", 4): [("def more_features(rows):\n    return rows[:, 0]", "one row for each"),
                ("def more_features(rows):\n    return 0 * rows[:, :1]", "tells nothing"),
                ("def more_features(rows):\n    return rows[:, :1] - rows[:, :1].mean()",
                 "depend on the other curves")],
    ("09", 1): [("def factors(scale, speed):\n    return scale * speed, 1.0", "SMP per distance changes by another"),
                ("def factors(scale, speed):\n    return speed, speed", "SMP changes by another factor")],
    ("09", 2): [("""
def orbit(t):
    pixel = torch.arange(28.0)
    turn = [6.283185307179586 * each for each in t.tolist()]
    return torch.stack([torch.exp(-((pixel[:, None] - 13.5 - 7 * torch.tensor(a).sin())**2
                                    + (pixel - 13.5 - 7 * torch.tensor(a).cos())**2) / 18)[None] for a in turn])
""", "the slope is lost"), ("""
def orbit(t):
    pixel, turn = torch.arange(28.0).to(t), 6.283185307179586 * t[:, None, None]
    down, across = pixel[:, None] - (13.5 + 7 * turn.sin()).round(), pixel - (13.5 + 7 * turn.cos()).round()
    return torch.exp(-(down**2 + across**2) / 18)[:, None]
""", "the slope 0 wherever"), ("""
def orbit(t):
    pixel, row, column = torch.arange(28.0).to(t), 13.5 + 7 * torch.sin(t), 13.5 + 7 * torch.cos(t)
    down, across = pixel[:, None] - row[:, None, None], pixel - column[:, None, None]
    return torch.exp(-(down**2 + across**2) / 18)[:, None]
""", "how long is a turn"), ("""
def orbit(t):
    pixel, turn = torch.arange(28.0).to(t), 4 * torch.pi * t[:, None, None]
    down, across = pixel[:, None] - 13.5 - 7 * turn.sin(), pixel - 13.5 - 7 * turn.cos()
    return torch.exp(-(down**2 + across**2) / 18)[:, None]
""", "an eighth of the turn")],
    ("09", 3): [("OneInput.forward = lambda self, joint: self.controller(joint[:, :3], joint[:, 3:])",
                 "it returns a tuple"),
                ("OneInput.forward = lambda self, joint: self.controller(joint[:, 2:], joint[:, :2])[0]",
                 "which columns go where"),
                ("OneInput.forward = lambda self, joint: self.controller(joint[:, :3], joint[:1, 3:])[0]",
                 "only the first row is right"),
                ("OneInput.forward = lambda self, joint: self.controller(joint[:, :3], 0 * joint[:, 3:] + torch.tensor("
                 "joint[:, 3:].tolist()).to(joint))[0]",
                 "what is cut off")],
    ("09", 4): [("""
def judged(model):
    one = attribute(model, models.load_path("smpcore.models:reference_line"),
                    torch.linspace(0, 1, 201, dtype=torch.float64, device=run.device))
    return one.total.item(), (one.total / (one.values[-1] - one.values[0]).abs()).item()
""", "the way back counts"), ("""
def judged(model):
    one = attribute(model, models.load_path("smpcore.models:reference_line"),
                    torch.linspace(0, 1, 201, dtype=torch.float64, device=run.device))
    return one.total.item(), (one.total / one.values.diff(dim=0).abs().mean()).item()
""", "your distance is")],
    ("09", 5): [("def two_pictures():\n    return torch.stack(models.reference_line())", "the max poolings make 7"),
                ("def two_pictures():\n    return torch.ones(2, 1, 28, 28)", "nothing moves")],
    ("10", 1): [("def softest(limit):\n    return 4.0", "is not the smallest that does"),
                ("def softest(limit):\n    return 0.5", "which is more"),
                ("def softest(limit):\n    return {b: mean_movement(b) <= limit for b in (4.0, 2.0, 1.0, 0.5)}",
                 "is none of")],
    ("10", 2): [("""
class SoftPool(SoftPool):
    def forward(self, x):
        return torch.nn.functional.max_pool2d(x, 2)
""", "still the maximum"), ("""
class SoftPool(SoftPool):
    def forward(self, x):
        windows = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
        return torch.logsumexp(self.beta * windows, -1)
""", "falls below|exceeds the maximum"), ("""
class SoftPool(SoftPool):
    def forward(self, x):
        windows = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
        return (torch.softmax(self.beta * windows, -1) * windows).sum(-1)
""", "falls below the largest"), ("""
class SoftPool(SoftPool):
    def forward(self, x):
        windows = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
        return torch.log(torch.exp(self.beta * windows).sum(-1)) / self.beta
""", "it overflows")],
    ("10", 3): [("""
def my_penalty(behind, here, ahead, h):
    return (ahead - 2 * here + behind).abs().mean() / h**2
""", "three times as large is penalised 3"), ("""
def my_penalty(behind, here, ahead, h):
    return ((ahead - behind) / (2 * h)).square().mean()
""", "moves in a straight line"), ("""
def my_penalty(behind, here, ahead, h):
    return (ahead - 2 * here + behind).abs().mean() / here.abs().mean() / h**2
""", "shifted by 5"), ("""
def my_penalty(behind, here, ahead, h):
    return (ahead - 2 * here + behind).detach().abs().mean() / (ahead - behind).detach().abs().mean()
""", "no gradient"), ("""
def my_penalty(behind, here, ahead, h):
    return (ahead - 2 * here + behind).abs().mean() / (ahead - behind).abs().mean()
""", "not finite")],
    ("10", 4): [("""
def combined_smp(weights, smps):
    return sum(weight * own for weight, own in zip(weights, smps, strict=True))
""", "kinks of different moments"), ("""
def combined_smp(weights, smps):
    return math.sqrt(sum((weight * own) ** 2 for weight, own in zip(weights, smps, strict=True)))
""", "kinks of different moments"),
                ("def combined_smp(weights, smps):\n    return sum(smps)", "a member's kink in the sum")],
    ("10", 5): [("""
def prices(network, found, inputs):
    return {layer.name: layer.smp.sum().item() for layer in found.layers}
""", "replaced alone it comes to"), ("""
def prices(network, found, inputs):
    moved = smoothing.relax(network, inputs).moved.square().mean().sqrt().item()
    return {layer.name: moved / (100 * (layer.smp.sum() / found.total.sum()).item()) for layer in found.layers}
""", "replaced alone it comes to"), ("def prices(network, found, inputs):\n    return {}", "the layers that kink are")],
    ("12", 1): [("""
def three_numbers(thresholds, weights):
    return sum(map(abs, weights)), sum(map(abs, weights)), sum(map(abs, weights))
""", "which jumps does the line meet"), ("""
def three_numbers(thresholds, weights):
    jump = {place: sum(w for tau, w in zip(thresholds, weights) if tau == place) for place in thresholds}
    read = sum(abs(height) for place, height in jump.items() if 0 < place < 1)
    return sum(map(abs, weights)), read, read
""", "no network with a penalty of"), ("""
def three_numbers(thresholds, weights):
    jump = {place: sum(w for tau, w in zip(thresholds, weights) if tau == place) for place in thresholds}
    read = sum(abs(height) for place, height in jump.items() if 0 < place < 1)
    return sum(map(abs, weights)), read, sum(map(abs, weights))
""", "are all units needed"), ("""
def three_numbers(thresholds, weights):
    return sum(map(abs, weights)), abs(sum(weights)), abs(sum(weights))
""", "one down elsewhere cancel"), ("def three_numbers(thresholds, weights):\n    return (abs(sum(weights)),) * 3",
                             "charges each unit by itself")],
    ("12", 2): [(f"""
def forward(self, x):
    potential, total = torch.full_like(x, {start}), 0
    for _ in range(self.steps):
        potential = potential + x
        spike = {spike}
        potential, total = {left}, total + spike
    return total{share}

Neuron.forward = forward
""", sentence) for start, spike, left, share, sentence in (
        (0.0, "self.unit(potential - 1)", "potential - spike", " / self.steps", "where does the potential start"),
        (0.5, "self.unit(potential - 1)", "potential * (1 - spike)", " / self.steps", "more than the threshold"),
        (0.5, "self.unit(potential - 1)", "potential", " / self.steps", "more than the threshold, or less"),
        (0.5, "self.unit(potential - 1)", "potential - spike", "", "at most one spike"),
        (0.5, "potential.clamp(0, 1)", "potential - spike", " / self.steps", "whole number of spikes"))],
    ("12", 3): [(f"""
def started_at(model, share):
    class Started(torch.nn.Module):
        def forward(self, grid):
            first, second, last = model.cnn.layers
            low, high = model.thresholds
            current, total = first(grid), 0
            one, two = torch.full_like(current, {first} * low), torch.full_like(current, {second} * high)
            for _ in range(model.steps):
                one = one + current
                spikes = low * (one >= low)
                one, two = one - spikes, two + second(spikes)
                spikes = high * (two >= high)
                two, total = two - spikes, total + spikes
            return model.cnn.place(last(total / model.steps))

    (error, frame_way, way), many = seen(Started())
    return {answer}
""", sentence) for first, second, answer, sentence in (
        ("0.5", "0.5", "error, way", "do both layers start"), ("share", "0.5", "error, way", "do both layers start"),
        ("share", "share", "error**2, way", "root of the mean square"),
        ("share", "share", "error, frame_way", "on the fine stretch"),
        ("share", "share", "error, variation(many).sum().item() * 100", "divided by the car's"),
        ("share", "share", "error, (many[-1] - many[0]).abs().sum() / variation(place(stretch)).sum()",
         "count by its size"))],
    ("15", 1): [("""
def motion_share(rate):
    dense = torch.arange(20, dtype=torch.float64, device=run.device) / rate
    return 1 - diagnosis.why(pipeline, drift, dense, outputs=eye, smp=False).shares["motion"]
""", "of what is it the share"), ("def motion_share(rate):\n    return 23.0", "is not a share"),
                ("def motion_share(rate):\n    return 0.2", "the closer ones bend less")],
    ("15", 2): [("class Parabola(Pose):\n    pass", "in whole pixels"), ("""
class Parabola(Pose):
    def forward(self, x):
        heat = self.unit(self.filter(x)).flatten(1)
        best = heat.argmax(1)
        found = []
        for stride, place in ((1, best % 64), (64, best // 64)):
            before, here, after = (heat.gather(1, (best + k * stride)[:, None])[:, 0] for k in (-1, 0, 1))
            found.append(place + 0.5 - (before - after) / (2 * (before - 2 * here + after)))
        return torch.stack(found, 1) / 64
""", "the right way"), ("""
class Parabola(Pose):
    def forward(self, x):
        return super().forward(x).flip(1)
""", "which coordinate is which")],
    ("15", 3): [("def recorded():\n    return tracks['as trained'][:, 0], fps", "too few"),
                ("def recorded():\n    return torch.zeros(100), 30.0", "stands still"),
                ("def recorded():\n    return torch.randn(100, 2), 30.0", "one output is a curve")],
    ("13", 1): [("def one_atom(strength, reach, iterations):\n    return 2 * iterations, 2.0 * iterations",
                 "does every switch reach"),
                ("def one_atom(strength, reach, iterations):\n    return 2 * iterations, 2.0", "attribute counts 0"),
                ("def one_atom(strength, reach, iterations):\n    return 2, 2.0", "attribute counts 12"),
                ("def one_atom(strength, reach, iterations):\n    return 2 * iterations, 2 * strength",
                 "is too little")],
    ("13", 2): [("""
Euler.forward = lambda self, y: y + sum((y.relu() - 1) / self.steps for _ in range(self.steps))
""", "begin where the last ended"), ("""
def forward(self, y):
    for _ in range(self.steps):
        y = y + y.relu() - 1
    return y

Euler.forward = forward
""", "how long are the steps")] + [(f"""
def forward(self, y):
    for _ in range(self.steps):
        y = y + (y.relu() - 1) / self.steps
    return y

def exact_bending():
    return {answer}

Euler.forward = forward
""", sentence) for answer, sentence in (("0.0", "has no kinks, but"), ("math.e", "too far from it"),
                                        ("(1 + 1 / 64) ** 64 - 1", "it is not exact"))],
    ("13", 3): [("def averaged(model, count):\n    return model", "do they differ"), ("""
def averaged(model, count):
    for _ in range(count):
        model.frozen = model.noise * torch.randn(8, 24)
    return model
""", "change copies of it"), ("""
def averaged(model, count):
    members = [copy.deepcopy(model) for _ in range(count)]
    for number, member in enumerate(members):
        member.frozen = model.noise * torch.randn(8, 24, generator=torch.Generator().manual_seed(number))
    return lambda window: sum(member(window) for member in members)
""", "is it a mean"), ("""
def averaged(model, count):
    member, draw = copy.deepcopy(model), torch.Generator().manual_seed(0)
    member.frozen = sum(model.noise * torch.randn(8, 24, generator=draw) for _ in range(count)) / count
    return member
""", "their noise that is averaged"),
                ("def averaged(model, count):\n    return copy.deepcopy(model).train()", "freeze the noise")],
    ("14", 1): [("""
def switching_shares(w, first, last):
    return ((first @ w.mT > 0).double().mean((0, 2))).tolist()
""", "compare the two ends"), ("""
def switching_shares(w, first, last):
    return ((first @ w.mT > 0) & (last @ w.mT < 0)).double().mean((0, 2)).tolist()
""", "count both directions"), ("""
def switching_shares(w, first, last):
    share = ((first @ w.mT) * (last @ w.mT) < 0).double().mean().item()
    return share, share
""", "you count")],
    ("14", 2): [(f"""
def expected_smp(w):
    return (w[:, {first}:].norm(dim=1).sum() * {factor} / len(w)).item()
""", sentence) for first, factor, sentence in (
        (1, "math.sqrt(2 / math.pi)", "of the measured SMP, too little"),
        (0, "2 * math.sqrt(2 / math.pi)", "the signal's component"),
        (1, "4 / math.sqrt(math.pi)", "too little|readouts"), (1, "math.sqrt(2 / math.pi) * len(w)", "readouts"))],
    ("14", 3): [("""
def nuisance_smp(model, first, last):
    grid = torch.linspace(0, 1, 33, dtype=torch.float64)
    return np.mean([attribute(model, lambda t: a + t[:, None, None] * (b - a), grid).total.item()
                    for a, b in zip(first, last)])
""", "divided by the margin"), ("""
def nuisance_smp(model, first, last):
    return ((model(last) - model(first)).abs().mean() / model(first).abs().mean()).item()
""", "are all its kinks counted"), ("""
def nuisance_smp(model, first, last):
    grid = torch.linspace(0, 1, 33, dtype=torch.float64)
    totals = [attribute(model, lambda t: a + t[:, None, None] * (b - a), grid).total.item()
              for a, b in zip(first, last)]
    return sum(totals) / model(torch.cat([first, last])).abs().mean().item()
""", "mean of the lines")],
    ("14", 4): [("""
def calm(x, given):
    return systems.train_patches(x[None], given[None], [seed], [640], rate=0.02)[640][0]
""", "not calm enough"), ("def calm(x, given):\n    return torch.zeros(20, 400)", "of the test inputs wrong"),
                ("""
def calm(x, given):
    return systems.train_patches(x[None], given[None], [seed], [5], rate=0.02)[5]
""", "are wanted, not")],
    ("11", 1): [("""
def angle_by_kinks(one, other):
    return math.pi * counted(lambda n: models.mlp(len(one), width=64, depth=2, seed=n), one, other, 12)[0] / 64
""", "are all layers' neurons counted"), ("""
def angle_by_kinks(one, other):
    return 180 * counted(lambda n: models.mlp(len(one), width=64, depth=2, seed=n), one, other, 12)[0] / 128
""", "is no angle between two inputs"), ("""
def angle_by_kinks(one, other):
    return math.pi * counted(lambda n: models.mlp(len(one), width=64, depth=2, seed=n, initialise="torch"), one, other,
                             12)[0] / 128
""", "have none of them biases")],
    ("11", 2): [("""
def expected_kinks(reach, width, depth):
    return depth * width * 2 / math.pi * math.atan(reach)
""", "which β has each layer"), ("""
def expected_kinks(reach, width, depth):
    return sum(width / math.pi * math.atan(reach / math.sqrt(layer)) for layer in range(1, depth + 1))
""", "from −T to T")],
    ("11", 3): [("""
def my_chord(generator):
    turns = 2 * math.pi * torch.rand(2, dtype=torch.float64, generator=generator)
    return tuple(torch.stack([torch.cos(turns), torch.sin(turns)], 1))
""", "where every offset is as likely"), ("""
def my_chord(generator):
    return disk.chord(generator)

def my_variation(model, chords):
    return 2 * mean_and_error([float(trace_line(model, *ends, length=float((ends[1] - ends[0]).norm())).smp[0])
                               for ends in chords])[0]
""", "too little"), ("""
def my_chord(generator):
    return disk.chord(generator)

def my_variation(model, chords):
    return 4 * mean_and_error([float(trace_line(model, *ends).smp[0]) for ends in chords])[0]
""", "too much")],
    ("11", 4): [("def easier_baseline(model, picture):\n    return picture", "nothing is left to share out"),
                ("def easier_baseline(model, picture):\n    return baseline", "not fewer"),
                ("def easier_baseline(model, picture):\n    return picture[0, 0]", "its shape is")],
    ("90", 1): [("""
def slope_differences(model, start, end, samples):
    return 2 * benchmarks.sampled_slopes(model, start, end, samples).diff().abs().sum().item() + 1
""", "it cannot be|is too much"),
                ("def slope_differences(model, start, end, samples):\n    return 0.0", "is it the slope in t"),
                ("""
def slope_differences(model, start, end, samples):
    return benchmarks.sampled_slopes(model, start, end, samples).abs().sum().item()
""", "do you add up differences|it cannot be")],
    ("90", 2): [("def missed(samples, reference):\n    return 1 - samples / reference", "the share that is seen"),
                ("def missed(samples, reference):\n    return 0.99", "the share that is seen"),
                ("def missed(samples, reference):\n    return 0.01", "miss nothing of what")],
    ("90", 3): [("""
def twins():
    return [cnn((1, 28, 28), channels=(8, 8, 8), activation=name, pooling="max") for name in ("gelu", "relu")]
""", "something in it switches"), ("""
def twins():
    return [cnn((1, 28, 28), channels=(8, 8, 8), activation="gelu", pooling="average") for _ in range(2)]
""", "has no kinks")],
}
