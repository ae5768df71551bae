#!/usr/bin/env node
/* SPDX-License-Identifier: PostgreSQL */
/*
 * A scripted language model behind the interfaces of four vendors, so that real coding agents can be tested without a
 * key, without a network and with the same answer every time:
 *
 *   POST .../chat/completions                          OpenAI's chat completions
 *   POST .../responses                                 OpenAI's responses
 *   POST .../messages, .../messages/count_tokens       Anthropic
 *   POST .../models/MODEL:streamGenerateContent        Gemini, also :generateContent and :countTokens
 *   GET  .../models                                    what models there are
 *
 * What is before that in the path is of no matter; a test that runs several agents gives each a prefix of its own, and
 * finds it in the log.
 *
 * It listens on loopback only and needs nothing but node (18 or newer).
 *
 *   llm-stub.mjs --port-file FILE [--port N] [--log FILE]
 *
 * --port-file  written (atomically) once the server listens: the port, one decimal number and a newline
 * --port       0 (default) takes a free one
 * --log        one JSON object a line for each request: {"path","api","stream","model","tools","script","step",
 *              "earlier","answer","served"}, and with BOOCODER_STUB_BODIES=1 also the whole "body"; "earlier": so many
 *              scripts came before in the conversation, "served": it was answered with tokens
 *
 * It ends when its standard input does, so it can't outlive the test that started it.
 *
 * The script of a turn is the last user message; each line that starts with "!" is a directive:
 *
 *   !say TEXT            text before the next tool call (or the closing text)
 *   !reason TEXT         the same as reasoning
 *   !read FILE           calls the agent's tool that reads a file (some refuse to overwrite what they haven't read)
 *   !write FILE CONTENT  calls the agent's tool that writes a file ("\n" in CONTENT is a line end)
 *   !run COMMAND         calls the agent's shell tool
 *   !escalate COMMAND    the same, and asks for more rights than its sandbox gives, where the tool has a way to
 *   !end TEXT            the closing text (default "Done.")
 *   !stream N            the closing text is N numbered words, one chunk each
 *   !status CODE [N]     answers this HTTP status instead, to the first N requests of this step or to all
 *   !cut [N]             the same: says its text and closes the connection in the middle of the answer
 *   !hang                takes the request and never answers
 *
 * An agent whose only tool is a shell reads and writes with that. One tool is called per request, in order; how far the
 * script is follows from the assistant messages with tool calls after the last user message, and the only state is the
 * count for "the first N". A request without tools (title makers, prompt suggestions, classifiers) or without a
 * directive gets a short text.
 *
 * Every answer reports the same usage: 1000 tokens in (200 of them cached), 50 out (10 of them reasoning, where the
 * interface can tell).
 */
import http from 'node:http';
import fs from 'node:fs';
import path from 'node:path';

const INPUT = 1000, CACHED = 200, OUTPUT = 50, REASONING = 10;
const MODELS = ['stub-model', 'stub-small'];
const MAX_BODY = 64 * 1024 * 1024;

const options = { port: 0, portFile: null, log: null };
for (let i = 2; i < process.argv.length; i += 2) {
	const value = process.argv[i + 1];
	switch (process.argv[i]) {
		case '--port': options.port = Number(value); break;
		case '--port-file': options.portFile = value; break;
		case '--log': options.log = value; break;
		default:
			console.error(`llm-stub: unknown option ${process.argv[i]}`);
			process.exit(2);
	}
}

/* ---- the script ---- */

/*
 * A request of any interface is turned into {model, stream, turns, tools}: turns are {role, text, calls}, tools are
 * {name, schema}.
 */

function textOf(content) {
	if (typeof content === 'string')
		return content;
	if (Array.isArray(content))
		return content.map((part) => part.text ?? '').join('\n');
	return '';
}

/* The directives of the last user message that has any, how many tools were called since, how many such came before. */
function scriptOf(turns) {
	const scripts = turns.map((turn) => turn.role !== 'user' ? []
		: turn.text.split('\n').map((line) => line.trim()).filter((line) => /^!\w+/.test(line)));
	const at = scripts.findLastIndex((directives) => directives.length > 0);
	return at < 0 ? { directives: [], done: 0, earlier: 0 }
		: { directives: scripts[at], done: turns.slice(at + 1).filter((turn) => turn.calls > 0).length,
			earlier: scripts.slice(0, at).filter((directives) => directives.length > 0).length };
}

/*
 * What to answer now: {reasoning, text, words, call: {kind, ...}, status, cut, hang}. "before" is how often this step
 * was asked for already.
 */
function planOf({ directives, done }, before) {
	const plan = { reasoning: '', text: '', words: 0, call: null, status: 0, cut: false, hang: false };
	let closing = 'Done.';
	let seen = 0;

	for (const line of directives) {
		const [, verb, rest] = /^!(\w+)\s?(.*)$/s.exec(line);
		const args = /^(\S*)\s?(.*)$/s.exec(rest);
		const current = seen === done;		/* this directive belongs to the present request */

		switch (verb) {
			case 'say': if (current) plan.text += rest; break;
			case 'reason': if (current) plan.reasoning += rest; break;
			case 'status':
				if (current && before < Number(args[2] || Infinity))
					plan.status = Number(args[1]);
				break;
			case 'cut': if (current) plan.cut = before < Number(rest || Infinity); break;
			case 'hang': if (current) plan.hang = true; break;
			case 'end': closing = rest; break;
			case 'stream': plan.words = Number(rest); break;
			case 'write':
				if (current)
					return { ...plan, words: 0,
						call: { kind: 'write', file: args[1], content: args[2].replaceAll('\\n', '\n') } };
				seen++;
				break;
			case 'read':
				if (current)
					return { ...plan, words: 0, call: { kind: 'read', file: rest } };
				seen++;
				break;
			case 'run':
			case 'escalate':
				if (current)
					return { ...plan, words: 0,
						call: { kind: 'run', command: rest, escalate: verb === 'escalate' } };
				seen++;
				break;
			default:
				plan.text += `unknown directive: ${line}`;
		}
	}
	if (plan.words === 0)
		plan.text += (plan.text ? ' ' : '') + closing;
	return plan;
}

/* ---- the agent's own tools ---- */

const TOOL_NAMES = {
	write: ['write', 'write_file', 'create_file', 'Write'],
	read: ['read', 'read_file', 'Read'],
	run: ['bash', 'run_shell_command', 'shell', 'Bash', 'exec_command', 'shell_command'],
};

/* The directory the agent works in, as it tells the model. */
function workingDirectory(turns) {
	const all = turns.map((turn) => turn.text).join('\n');
	const found = /working (?:directory|in the directory|dir)\W{1,4}(\/[^\s`'"<>]+)/i.exec(all);
	return found ? found[1].replace(/[.,;]$/, '') : null;
}

function quoted(text) {
	return `'${text.replaceAll("'", "'\\''")}'`;
}

/* For an agent that has nothing but a shell */
function asCommand(call) {
	if (call.kind === 'read')
		return { kind: 'run', command: `cat ${quoted(call.file)}` };
	return { kind: 'run', command: `mkdir -p ${quoted(path.dirname(call.file))} && `
		+ `printf %s ${quoted(call.content)} > ${quoted(call.file)}` };
}

/* The call as {name, args}, with the argument names that this agent's schema declares. */
function toolCall(call, { tools, turns }) {
	const find = (kind) => tools.find((tool) => TOOL_NAMES[kind].includes(tool.name.replace(/^.*__/, '')));
	let tool = find(call.kind);
	if (!tool) {
		tool = find('run');
		call = call.kind === 'run' ? call : asCommand(call);
	}
	if (!tool)
		return null;
	const names = Object.keys(tool.schema?.properties ?? {});
	const pick = (pattern) => names.find((name) => pattern.test(name));
	const args = {};

	if (call.kind !== 'run') {
		const base = workingDirectory(turns);
		args[pick(/^(file_?path|path)$/i) ?? 'path'] = base ? path.join(base, call.file) : call.file;
		if (call.kind === 'write')
			args[pick(/^(content|text)$/i) ?? 'content'] = call.content;
	} else {
		const name = pick(/^(command|cmd)$/i) ?? 'command';
		args[name] = tool.schema?.properties?.[name]?.type === 'array' ? ['bash', '-c', call.command] : call.command;
		if (pick(/^description$/i))
			args[pick(/^description$/i)] = 'Run a command of the test';
		if (pick(/^is_background$/i))
			args[pick(/^is_background$/i)] = false;
		if (call.escalate && pick(/^sandbox_permissions$/)) {
			args.sandbox_permissions = 'require_escalated';
			args.justification = 'The test wants it';
		}
	}
	return { name: tool.name, args };
}

/* ---- HTTP ---- */

let serial = 0;

function log(entry) {
	if (options.log)
		fs.appendFileSync(options.log, JSON.stringify(entry) + '\n');
}

function sendJson(response, status, value) {
	response.writeHead(status, { 'content-type': 'application/json' });
	response.end(JSON.stringify(value));
}

/* Server-sent events; an interface that names its events has the name in "type". */
function eventStream(response) {
	response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
	return (value, named) =>
		response.write(`${named ? `event: ${value.type}\n` : ''}data: ${JSON.stringify(value)}\n\n`);
}

/* The pieces of the text of an answer, one by one; then "finish", unless it is to be cut. Waits for a slow reader. */
function sayPieces(response, plan, piece, finish) {
	let word = 0;
	const more = () => {
		while (word < plan.words && !response.destroyed) {
			word++;
			piece(`word${word} `);
			if (response.writableNeedDrain)
				return response.once('drain', more);
		}
		if (plan.cut)
			response.write(':\n\n', () => response.destroy());
		else
			finish();
	};
	for (const part of plan.text.match(/\S+\s*/g) ?? [])
		piece(part);
	more();
}

/* The arguments of a tool call come in two pieces, as real models do it. */
function halves(text) {
	const cut = Math.ceil(text.length / 2);
	return [text.slice(0, cut), text.slice(cut)];
}

/* ---- the interfaces: read(body, where) and whole/stream(response, request, plan, call) ---- */

const chat = {
	read: (body) => ({
		model: body.model,
		stream: body.stream === true,
		turns: (body.messages ?? []).map((m) => ({
			role: m.role, text: textOf(m.content), calls: m.role === 'assistant' ? m.tool_calls?.length ?? 0 : 0 })),
		tools: (body.tools ?? []).map((t) => t.function ?? t)
			.map((t) => ({ name: t.name ?? '', schema: t.parameters })),
	}),
	error: (status, message) => ({ error: { message, type: 'stub_error', code: String(status) } }),
	usage: {
		prompt_tokens: INPUT, completion_tokens: OUTPUT, total_tokens: INPUT + OUTPUT,
		prompt_tokens_details: { cached_tokens: CACHED }, completion_tokens_details: { reasoning_tokens: REASONING },
	},
	head: (request) => ({ id: `chatcmpl-${serial}`, created: Math.floor(Date.now() / 1000), model: request.model }),

	whole(response, request, plan, call) {
		const message = { role: 'assistant', content: plan.text || null };
		if (plan.reasoning)
			message.reasoning_content = plan.reasoning;
		if (call)
			message.tool_calls = [{ id: `call_${serial}`, type: 'function',
				function: { name: call.name, arguments: JSON.stringify(call.args) } }];
		sendJson(response, 200, { ...chat.head(request), object: 'chat.completion', usage: chat.usage,
			choices: [{ index: 0, message, finish_reason: call ? 'tool_calls' : 'stop' }] });
	},

	stream(response, request, plan, call) {
		const send = eventStream(response);
		const head = { ...chat.head(request), object: 'chat.completion.chunk' };
		const delta = (d, finish = null) => send({ ...head, choices: [{ index: 0, delta: d, finish_reason: finish }] });

		delta({ role: 'assistant', content: '' });
		if (plan.reasoning)
			delta({ reasoning_content: plan.reasoning });
		sayPieces(response, plan, (content) => delta({ content }), () => {
			if (call) {
				delta({ tool_calls: [{ index: 0, id: `call_${serial}`, type: 'function',
					function: { name: call.name, arguments: '' } }] });
				for (const half of halves(JSON.stringify(call.args)))
					delta({ tool_calls: [{ index: 0, function: { arguments: half } }] });
			}
			delta({}, call ? 'tool_calls' : 'stop');
			send({ ...head, choices: [], usage: chat.usage });
			response.end('data: [DONE]\n\n');
		});
	},
};

const messages = {
	read: (body) => ({
		model: body.model,
		stream: body.stream === true,
		turns: [{ role: 'system', text: textOf(body.system), calls: 0 }, ...(body.messages ?? []).map((m) => ({
			role: m.role, text: textOf(m.content),
			calls: Array.isArray(m.content) ? m.content.filter((part) => part.type === 'tool_use').length : 0 }))],
		tools: (body.tools ?? []).map((t) => ({ name: t.name ?? '', schema: t.input_schema })),
	}),
	error: (status, message) => ({ type: 'error', error: { message,
		type: { 401: 'authentication_error', 429: 'rate_limit_error', 529: 'overloaded_error' }[status] ?? 'api_error' } }),
	usage: { input_tokens: INPUT - CACHED, cache_creation_input_tokens: 0, cache_read_input_tokens: CACHED,
		output_tokens: OUTPUT },
	head: (request, content, reason) => ({ id: `msg_${serial}`, type: 'message', role: 'assistant', model: request.model,
		content, stop_reason: reason, stop_sequence: null }),

	whole(response, request, plan, call) {
		const content = [];
		if (plan.reasoning)
			content.push({ type: 'thinking', thinking: plan.reasoning, signature: 'c2lnbmVk' });
		if (plan.text)
			content.push({ type: 'text', text: plan.text });
		if (call)
			content.push({ type: 'tool_use', id: `toolu_${serial}`, name: call.name, input: call.args });
		sendJson(response, 200,
			{ ...messages.head(request, content, call ? 'tool_use' : 'end_turn'), usage: messages.usage });
	},

	stream(response, request, plan, call) {
		const events = eventStream(response);
		const send = (type, value) => events({ type, ...value }, true);
		let index = -1;
		const open = (block) => send('content_block_start', { index: ++index, content_block: block });
		const delta = (value) => send('content_block_delta', { index, delta: value });
		const close = () => send('content_block_stop', { index });

		send('message_start',
			{ message: { ...messages.head(request, [], null), usage: { ...messages.usage, output_tokens: 1 } } });
		if (plan.reasoning) {
			open({ type: 'thinking', thinking: '', signature: '' });
			delta({ type: 'thinking_delta', thinking: plan.reasoning });
			delta({ type: 'signature_delta', signature: 'c2lnbmVk' });
			close();
		}
		const speaks = plan.text !== '' || plan.words > 0;
		if (speaks)
			open({ type: 'text', text: '' });
		sayPieces(response, plan, (text) => delta({ type: 'text_delta', text }), () => {
			if (speaks)
				close();
			if (call) {
				open({ type: 'tool_use', id: `toolu_${serial}`, name: call.name, input: {} });
				for (const half of halves(JSON.stringify(call.args)))
					delta({ type: 'input_json_delta', partial_json: half });
				close();
			}
			send('message_delta', { delta: { stop_reason: call ? 'tool_use' : 'end_turn', stop_sequence: null },
				usage: messages.usage });
			send('message_stop', {});
			response.end();
		});
	},
};

const responses = {
	read: (body) => ({
		model: body.model,
		stream: body.stream === true,
		turns: [{ role: 'system', text: textOf(body.instructions), calls: 0 },
			...(typeof body.input === 'string' ? [{ role: 'user', content: body.input }] : body.input ?? []).map((item) => ({
				role: item.role ?? 'assistant', text: textOf(item.content),
				calls: item.type === 'function_call' ? 1 : 0 }))],
		tools: (body.tools ?? []).map((t) => ({ name: t.name ?? '', schema: t.parameters })),
	}),
	error: chat.error,
	usage: { input_tokens: INPUT, input_tokens_details: { cached_tokens: CACHED }, output_tokens: OUTPUT,
		output_tokens_details: { reasoning_tokens: REASONING }, total_tokens: INPUT + OUTPUT },
	items(plan, call) {
		const items = [];
		if (plan.reasoning)
			items.push({ type: 'reasoning', id: `rs_${serial}`, encrypted_content: null,
				summary: [{ type: 'summary_text', text: plan.reasoning }] });
		if (plan.text || plan.words)
			items.push({ type: 'message', id: `msg_${serial}`, role: 'assistant', status: 'completed',
				content: [{ type: 'output_text', text: plan.text, annotations: [] }] });
		if (call)
			items.push({ type: 'function_call', id: `fc_${serial}`, call_id: `call_${serial}`, name: call.name,
				arguments: JSON.stringify(call.args), status: 'completed' });
		return items;
	},
	head: (request, status, output) => ({ id: `resp_${serial}`, object: 'response', model: request.model, status, output,
		created_at: Math.floor(Date.now() / 1000) }),

	whole(response, request, plan, call) {
		sendJson(response, 200, { ...responses.head(request, 'completed', responses.items(plan, call)),
			usage: responses.usage });
	},

	stream(response, request, plan, call) {
		const events = eventStream(response);
		let sequence = 0;
		const send = (type, value) => events({ type, sequence_number: sequence++, ...value }, true);
		const items = responses.items(plan, call);
		const next = (at) => {
			const item = items[at];
			if (!item) {
				send('response.completed',
					{ response: { ...responses.head(request, 'completed', items), usage: responses.usage } });
				return response.end();
			}
			const where = { item_id: item.id, output_index: at };
			const done = () => {
				send('response.output_item.done', { output_index: at, item });
				next(at + 1);
			};
			send('response.output_item.added', { output_index: at,
				item: { ...item, status: 'in_progress', ...(item.summary && { summary: [] }), ...(item.content && { content: [] }),
					...(item.arguments && { arguments: '' }) } });
			if (item.type === 'reasoning') {
				send('response.reasoning_summary_part.added',
					{ ...where, summary_index: 0, part: { type: 'summary_text', text: '' } });
				send('response.reasoning_summary_text.delta', { ...where, summary_index: 0, delta: plan.reasoning });
				send('response.reasoning_summary_text.done', { ...where, summary_index: 0, text: plan.reasoning });
				done();
			} else if (item.type === 'function_call') {
				for (const delta of halves(item.arguments))
					send('response.function_call_arguments.delta', { ...where, delta });
				send('response.function_call_arguments.done', { ...where, arguments: item.arguments });
				done();
			} else {
				const said = item.content[0];
				said.text = '';
				send('response.content_part.added',
					{ ...where, content_index: 0, part: { type: 'output_text', text: '', annotations: [] } });
				sayPieces(response, plan, (delta) => {
					said.text += delta;
					send('response.output_text.delta', { ...where, content_index: 0, delta });
				}, () => {
					send('response.output_text.done', { ...where, content_index: 0, text: said.text });
					send('response.content_part.done', { ...where, content_index: 0, part: said });
					done();
				});
			}
		};

		send('response.created', { response: responses.head(request, 'in_progress', []) });
		next(0);
	},
};

const gemini = {
	read: (body, where) => ({
		model: /models\/([^/:]+):/.exec(where)[1],
		stream: where.endsWith(':streamGenerateContent'),
		turns: [{ role: 'system', text: textOf(body.systemInstruction?.parts), calls: 0 },
			...(body.contents ?? []).map((c) => ({ role: c.role === 'model' ? 'assistant' : 'user', text: textOf(c.parts),
				calls: (c.parts ?? []).filter((part) => part.functionCall).length }))],
		tools: (body.tools ?? []).flatMap((t) => t.functionDeclarations ?? [])
			.map((t) => ({ name: t.name ?? '', schema: t.parametersJsonSchema ?? t.parameters })),
	}),
	error: (status, message) => ({ error: { code: status, message,
		status: { 401: 'UNAUTHENTICATED', 429: 'RESOURCE_EXHAUSTED' }[status] ?? 'INTERNAL' } }),
	usage: { promptTokenCount: INPUT, cachedContentTokenCount: CACHED, candidatesTokenCount: OUTPUT - REASONING,
		thoughtsTokenCount: REASONING, totalTokenCount: INPUT + OUTPUT },
	chunk: (request, parts, last) => ({ responseId: `r${serial}`, modelVersion: request.model,
		candidates: [{ index: 0, content: { role: 'model', parts }, ...(last && { finishReason: 'STOP' }) }],
		...(last && { usageMetadata: gemini.usage }) }),
	callParts: (call) => call ? [{ functionCall: { id: `fc_${serial}`, name: call.name, args: call.args } }] : [],

	whole(response, request, plan, call) {
		const parts = [...(plan.text ? [{ text: plan.text }] : []), ...gemini.callParts(call)];
		sendJson(response, 200, gemini.chunk(request, parts, true));
	},

	stream(response, request, plan, call) {
		const send = eventStream(response);
		if (plan.reasoning)
			send(gemini.chunk(request, [{ text: plan.reasoning, thought: true }]));
		sayPieces(response, plan, (text) => send(gemini.chunk(request, [{ text }])), () => {
			send(gemini.chunk(request, call ? gemini.callParts(call) : [{ text: '' }], true));
			response.end();
		});
	},
};

const INTERFACES = [
	[/\/chat\/completions$/, 'chat', chat],
	[/\/messages$/, 'messages', messages],
	[/\/responses$/, 'responses', responses],
	[/\/models\/[^/:]+:(?:streamG|g)enerateContent$/, 'gemini', gemini],
];

const asked = new Map();		/* how often each step of each script was asked for, by path */

function answer(response, [, name, api], url, where, body) {
	const request = api.read(body, where);
	const script = request.tools.length > 0 ? scriptOf(request.turns) : { directives: [], done: 0, earlier: 0 };
	const step = JSON.stringify([where, script]);
	const before = asked.get(step) ?? 0;
	asked.set(step, before + 1);
	const plan = script.directives.length > 0 ? planOf(script, before)
		: planOf({ directives: ['!end Scripted answer'], done: 0 }, before);
	const call = plan.call ? toolCall(plan.call, request) : null;

	serial++;
	if (plan.call && !call)
		plan.text += ` (no tool for ${plan.call.kind})`;
	const entry = { path: url, api: name, stream: request.stream, model: request.model,
		tools: request.tools.map((t) => t.name), script: script.directives, step: script.done, earlier: script.earlier,
		answer: call ? call : plan.text, served: !plan.hang && !plan.status && !plan.cut };
	if (process.env.BOOCODER_STUB_BODIES)
		entry.body = body;
	log(entry);

	if (plan.hang)
		return;
	if (plan.cut && !request.stream)
		return response.destroy();
	if (plan.status)
		return sendJson(response, plan.status, api.error(plan.status, `scripted status ${plan.status}`));
	(request.stream ? api.stream : api.whole)(response, request, plan, call);
}

const server = http.createServer((request, response) => {
	const chunks = [];
	let size = 0;

	response.on('error', () => {});
	request.on('error', () => {});
	request.on('data', (chunk) => {
		size += chunk.length;
		if (size > MAX_BODY)
			request.destroy();
		else
			chunks.push(chunk);
	});
	request.on('end', () => {
		const where = request.url.split('?')[0];
		if (request.method === 'GET' && where.endsWith('/models'))
			return sendJson(response, 200, { object: 'list',
				data: MODELS.map((id) => ({ id, object: 'model', owned_by: 'boocoder' })) });
		const found = request.method === 'POST' ? INTERFACES.find(([pattern]) => pattern.test(where)) : undefined;
		const counts = request.method === 'POST' && /\/messages\/count_tokens$|:countTokens$/.test(where);
		if (!found && !counts) {
			log({ path: request.url, refused: true });
			return sendJson(response, 404, chat.error(404, 'no such thing here'));
		}
		if (counts)
			return sendJson(response, 200, { input_tokens: INPUT, totalTokens: INPUT });
		let body;
		try {
			body = JSON.parse(Buffer.concat(chunks).toString('utf8'));
		} catch (error) {
			return sendJson(response, 400, found[2].error(400, `bad JSON: ${error.message}`));
		}
		answer(response, found, request.url, where, body);
	});
});

server.listen(options.port, '127.0.0.1', () => {
	const { port } = server.address();
	if (options.portFile) {
		fs.writeFileSync(`${options.portFile}.new`, `${port}\n`);
		fs.renameSync(`${options.portFile}.new`, options.portFile);
	} else
		console.log(port);
});

process.stdin.on('end', () => process.exit(0));
process.stdin.on('error', () => process.exit(0));
process.stdin.resume();
