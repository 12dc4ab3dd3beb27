'use strict';
// Draws /status.json, again and again. Nothing is loaded from elsewhere.

const spans = [[120, '2 min'], [900, '15 min'], [3600, '1 h'], [21600, '6 h'], [86400, '1 d']];
const charts = [
	{title: 'Bytes a second', unit: bytes, lines: [['readBytes', 'read', 'a'], ['writeBytes', 'written', 'b'], ['storedBytes', 'stored', 'c']]},
	{title: 'Requests a second', unit: count, lines: [['reads', 'reads', 'a'], ['writes', 'writes', 'b'], ['syncs', 'syncs', 'c']]},
	{title: 'Time taken, 99 % and half (thin)', unit: nanos, log: true, lines: [
		['readCached99', 'read, cached', 'd'], ['read99', 'read', 'a'], ['write99', 'write', 'b'], ['sync99', 'sync', 'c'],
		['readCached50', '', 'd', 'dim'], ['read50', '', 'a', 'dim'], ['write50', '', 'b', 'dim'], ['sync50', '', 'c', 'dim']]},
	{title: 'Answered by', unit: percent, top: 1, lines: [['lumpHits', 'lump cache', 'a'], ['indexHits', 'index cache', 'b'],
		['bloomHits', 'Bloom filter', 'c'], ['dupes', 'writes that were there', 'd']]},
	{title: 'Index entries not on disk', unit: count, lines: [['dirty', 'dirty', 'b']]},
	{title: 'Clients', unit: count, lines: [['conns', 'connected', 'a']]},
];
const left = 58, right = 8, top_ = 8, bottom = 20, height = 150;

let span = 120, data = null, timer = 0;
const $ = id => document.getElementById(id);

function el(name, attrs, ...children) {
	const e = name.startsWith('svg:') ? document.createElementNS('http://www.w3.org/2000/svg', name.slice(4)) : document.createElement(name);
	for (const k in attrs) e.setAttribute(k, attrs[k]);
	e.append(...children);
	return e;
}

function scaled(n, step, units) {
	let i = 0;
	while (Math.abs(n) >= step * .9995 && i < units.length - 1) { n /= step; i++; }
	const digits = n === 0 || Math.abs(n) >= 99.95 || i === 0 && Number.isInteger(n) ? 0 : Math.abs(n) >= 9.995 ? 1 : 2;
	return n.toFixed(digits) + units[i];
}
function bytes(n) { return scaled(n, 1024, [' B', ' KiB', ' MiB', ' GiB', ' TiB', ' PiB']); }
function count(n) { return scaled(n, 1000, ['', ' k', ' M', ' G']); }
function nanos(n) { return scaled(n, 1000, [' ns', ' µs', ' ms', ' s']); }
function percent(n) { return (100 * n).toFixed(n > 0 && n < .1 ? 1 : 0) + ' %'; }
function whole(n) { return n.toLocaleString('en'); }
function lasting(ms) {
	const s = Math.max(0, Math.round(ms / 1000));
	if (s < 60) return s + ' s';
	if (s < 3600) return Math.floor(s / 60) + ' min';
	if (s < 172800) return Math.floor(s / 3600) + ' h ' + Math.floor(s % 3600 / 60) + ' min';
	return Math.floor(s / 86400) + ' d';
}
function clock(ms, seconds) {
	const t = new Date(ms), p = n => String(n).padStart(2, '0');
	return p(t.getHours()) + ':' + p(t.getMinutes()) + (seconds ? ':' + p(t.getSeconds()) : '');
}

// niceTop returns the end of an axis that holds max, a round number of units.
function niceTop(max, step) {
	let unit = 1;
	if (max <= 0) return 1;
	while (max / unit >= step) unit *= step;
	const p = unit * 10 ** Math.floor(Math.log10(max / unit));
	return [1, 2, 3, 4, 5, 6, 8, 10].map(f => f * p).find(v => v >= max * .999);
}

function makeChart(c) {
	c.svg = el('svg:svg', {role: 'img', 'aria-label': c.title});
	c.key = el('p', {class: 'key'});
	c.svg.addEventListener('pointermove', e => { c.at = e.clientX - c.svg.getBoundingClientRect().left; drawChart(c); });
	c.svg.addEventListener('pointerleave', () => { c.at = undefined; drawChart(c); });
	$('charts').append(el('div', {class: 'card chart'}, el('h2', {}, c.title), c.svg, c.key));
}

function drawChart(c) {
	if (!data) return;
	const width = c.svg.clientWidth || 560, n = data.times.length;
	const x = i => left + (width - left - right) * i / Math.max(1, n - 1);
	let max = 0, min = Infinity;
	for (const [name] of c.lines) for (const v of data.series[name]) if (v !== null) { max = Math.max(max, v); if (v > 0) min = Math.min(min, v); }
	let y, ticks;
	const room = height - top_ - bottom;
	if (c.log) {
		const lo = Math.floor(Math.log10(Math.min(min, 1e3))), hi = Math.max(lo + 1, Math.ceil(Math.log10(Math.max(max, 1e6))));
		y = v => top_ + room * (1 - (Math.log10(Math.max(v, 10 ** lo)) - lo) / (hi - lo));
		ticks = [];
		for (let e = lo; e <= hi; e++) if (hi - lo < 5 || (e - lo) % 2 === 0) ticks.push(10 ** e);
	} else {
		const end = c.top || niceTop(max, c.unit === bytes ? 1024 : 1000);
		y = v => top_ + room * (1 - v / end);
		ticks = [0, end / 2, end];
	}
	const parts = [];
	for (const t of ticks) {
		parts.push(el('svg:line', {class: 'rule', x1: left, x2: width - right, y1: y(t), y2: y(t)}));
		parts.push(el('svg:text', {x: left - 6, y: y(t) + 4, 'text-anchor': 'end'}, c.unit(t)));
	}
	const steps = width > 420 ? 4 : 2;
	for (let k = 0; k <= steps; k++) {
		const i = Math.round((n - 1) * k / steps);
		parts.push(el('svg:text', {x: x(i), y: height - 5, 'text-anchor': k === 0 ? 'start' : k === steps ? 'end' : 'middle'}, clock(data.times[i], span <= 900)));
	}
	for (const [name, , colour, dim] of c.lines) {
		let d = '', pen = false;
		data.series[name].forEach((v, i) => {
			if (v === null) { pen = false; return; }
			// A point with none beside it is drawn as a short line.
			d += (pen ? 'L' : 'M') + x(i).toFixed(1) + ' ' + y(v).toFixed(1) + (pen ? '' : 'h.1');
			pen = true;
		});
		parts.push(el('svg:path', {class: colour + (dim ? ' ' + dim : ''), 'data-line': name, 'stroke-linecap': 'round', d}));
	}
	let i = n - 1;
	if (c.at !== undefined) {
		i = Math.min(n - 1, Math.max(0, Math.round((c.at - left) / (width - left - right) * (n - 1))));
		parts.push(el('svg:line', {class: 'cursor', x1: x(i), x2: x(i), y1: top_, y2: height - bottom}));
	} else {
		// The last point may have no whole second yet.
		while (i > 0 && c.lines.every(([name]) => data.series[name][i] === null)) i--;
	}
	c.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
	c.svg.replaceChildren(...parts);
	c.key.replaceChildren(...c.lines.filter(l => l[1]).map(([name, label, colour]) => {
		const v = data.series[name][i];
		return el('span', {class: colour}, label + (v === null ? '' : ' ' + c.unit(v)));
	}), ...(c.at === undefined ? [] : [document.createTextNode(clock(data.times[i], true))]));
}

function tile(label, value, note, share, bad) {
	const t = el('div', {class: 'card tile'}, el('span', {class: 'quiet'}, label), el('b', {class: bad ? 'bad' : ''}, value), el('span', {class: 'quiet'}, note || ''));
	if (share !== undefined) {
		const bar = el('i', {});
		bar.style.width = Math.min(100, 100 * share) + '%';
		t.append(el('div', {class: 'bar' + (share > .9 ? ' warn' : '')}, bar));
	}
	return t;
}

let arenasDrawn = '';

// drawArenas draws what may be thousands of arenas, when one has changed.
function drawArenas() {
	const text = JSON.stringify(data.arenas);
	if (text === arenasDrawn) return;
	arenasDrawn = text;
	const states = new Map();
	$('arenas').replaceChildren(...data.arenas.map(a => {
		states.set(a.state, (states.get(a.state) || 0) + 1);
		const bar = el('i', {});
		bar.style.height = Math.min(100, a.clumps ? Math.max(4, 100 * a.fill) : 0) + '%';
		const when = a.changed ? ', last write ' + new Date(a.changed).toLocaleString() : '';
		return el('div', {class: 'arena ' + a.state, title: `${a.name}: ${a.state}, ${percent(a.fill)}, ${whole(a.clumps)} clumps${when}`}, bar);
	}));
	$('arenaKey').replaceChildren(...[...states].map(([state, n]) => el('span', {class: state}, `${state} ${whole(n)}`)));
	if (data.arenas.length < data.space.arenas) $('arenaKey').append(`the first ${whole(data.arenas.length)} of ${whole(data.space.arenas)}`);
}

function draw() {
	const s = data.space, b = data.buckets, f = data.bloom, u = data.clients, c = data.scrub;
	$('index').textContent = data.index;
	document.title = (data.health ? '✕ ' : '') + 'venti ' + data.index;
	$('health').textContent = data.health ? 'cannot write: ' + data.health : data.readOnly ? 'read-only' : 'healthy';
	$('health').className = 'badge ' + (data.health ? 'bad' : 'good');
	$('facts').textContent = `up ${lasting(data.now - data.began)}, new blocks ${data.encoding}`;
	$('tiles').replaceChildren(
		tile('Space used', bytes(s.used), 'of ' + bytes(s.total) + ', ' + percent(s.used / s.total), s.used / s.total),
		tile('Blocks', whole(s.clumps), bytes(s.data) + ' of data'),
		tile('Stored as', s.stored ? (s.data / s.stored).toFixed(2) + ' : 1' : '–', bytes(s.stored)),
		tile('Lump cache', bytes(data.cache.bytes), `of ${bytes(data.cache.size)}, ${whole(data.cache.lumps)} blocks`),
		tile('Corrupt clumps', whole(data.damage.corrupt), `${whole(data.damage.healed)} healed, ${whole(data.damage.forged)} forged`, undefined, data.damage.corrupt + data.damage.forged > 0),
		...(c.rate ? [tile('Scrub', c.arena || 'done', `${whole(c.arenas)} arenas, ${whole(c.corrupt)} corrupt clumps, ${whole(c.badSeals)} bad seals`, undefined, c.corrupt + c.badSeals > 0)] : []),
		...(f ? [tile('Bloom filter', percent(f.fill), `${bytes(f.bytes)}, ${f.false < 1e-3 ? '< 0.1 %' : percent(f.false)} wrong`, f.fill)] : []),
		...(u ? [tile('Clients', whole(u.now), `of ${u.max}, ${whole(u.accepted)} so far`)] : []));
	charts.forEach(drawChart);

	$('arenaFacts').textContent = `${whole(s.arenas)}: ${whole(s.sealed)} full, ${whole(s.active - s.sealed)} being filled`;
	drawArenas();

	const rows = [
		['buckets', `${whole(b.buckets)} in ${b.sections} section${b.sections === 1 ? '' : 's'}`],
		['filled to', percent(s.clumps / b.capacity)],
		['entries not on disk', `${whole(b.dirty)} of at most ${whole(b.bound)}`],
		['entries without room', whole(b.stuck)],
		['flushes', whole(b.flushes)],
	];
	if (f) rows.push(['Bloom filter', `${bytes(f.bytes)}, ${f.hashes} bits a block`]);
	$('buckets').replaceChildren(...rows.flatMap(([k, v]) => [el('dt', {}, k), el('dd', {}, v)]));

	$('clientFacts').textContent = u && u.refused ? `${whole(u.refused)} turned away` : '';
	$('clients').replaceChildren(...(u ? u.list : []).map(c => el('tr', {}, el('td', {}, c.addr === '@' || c.addr === '' ? 'unix socket' : c.addr),
		el('td', {}, lasting(data.now - c.since)), el('td', {}, whole(c.requests)), el('td', {}, whole(c.inFlight)))));
	$('log').replaceChildren(...data.log.map(m => el('li', {class: m.level}, el('time', {}, clock(m.time, true)), m.text)));
}

async function update() {
	clearTimeout(timer);
	try {
		const r = await fetch('/status.json?span=' + span, {cache: 'no-store'});
		if (!r.ok) throw new Error(r.status);
		data = await r.json();
		draw();
		document.body.dataset.ready = '1';
	} catch (e) {
		$('health').textContent = 'no answer';
		$('health').className = 'badge bad';
	}
	timer = setTimeout(update, document.hidden ? 10000 : span <= 120 ? 1000 : 5000);
}

for (const [s, label] of spans) {
	const b = el('button', {type: 'button', 'aria-pressed': s === span}, label);
	b.addEventListener('click', () => {
		span = s;
		for (const o of $('spans').children) o.setAttribute('aria-pressed', o === b);
		update();
	});
	$('spans').append(b);
}
charts.forEach(makeChart);
addEventListener('resize', () => charts.forEach(drawChart));
document.addEventListener('visibilitychange', () => { if (!document.hidden) update(); });
update();
