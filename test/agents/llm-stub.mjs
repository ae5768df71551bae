#!/usr/bin/env node
/* SPDX-License-Identifier: PostgreSQL */
/*
 * A scripted language model behind the OpenAI chat-completions interface, so that real coding agents can be
 * tested without a key, without a network and with the same answer every time.
 *
 * It listens on loopback only and needs nothing but node (18 or newer).
 *
 *   llm-stub.mjs --port-file FILE [--port N] [--log FILE]
 *
 * --port-file  written (atomically) once the server listens: the port, one decimal number and a newline
 * --port       0 (default) takes a free one
 * --log        one JSON object a line for each request: {"path","stream","model","tools","script","step","answer"},
 *              and with BOOCODER_STUB_BODIES=1 also the whole "body"
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
 *   !end TEXT            the closing text (default "Done.")
 *   !stream N            the closing text is N numbered words, one chunk each
 *   !status CODE         answers this HTTP status instead
 *   !hang                takes the request and never answers
 *
 * One tool is called per request, in order; how far the script is follows from the assistant messages with tool
 * calls after the last user message, so the server keeps no state. A request without tools (title makers, prompt
 * suggestions, classifiers) or without a directive gets a short text.
 *
 * Every answer reports the same usage: 1000 tokens in (200 of them cached), 50 out (10 of them reasoning).
 */
import http from 'node:http';
import fs from 'node:fs';
import path from 'node:path';

const USAGE = {
	prompt_tokens: 1000,
	completion_tokens: 50,
	total_tokens: 1050,
	prompt_tokens_details: { cached_tokens: 200 },
	completion_tokens_details: { reasoning_tokens: 10 },
};
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

function textOf(message) {
	if (typeof message?.content === 'string')
		return message.content;
	if (Array.isArray(message?.content))
		return message.content.map((part) => part.text ?? '').join('\n');
	return '';
}

/* The directives of the last user message that has any, and how many tools were called since. */
function scriptOf(messages) {
	for (let i = messages.length - 1; i >= 0; i--) {
		if (messages[i].role !== 'user')
			continue;
		const directives = textOf(messages[i]).split('\n').map((line) => line.trim())
			.filter((line) => /^!\w+/.test(line));
		if (directives.length === 0)
			continue;
		const done = messages.slice(i + 1)
			.filter((m) => m.role === 'assistant' && m.tool_calls?.length > 0).length;
		return { directives, done };
	}
	return { directives: [], done: 0 };
}

/* What to answer now: {reasoning, text, words, call: {kind, ...}, status, hang}. */
function planOf({ directives, done }) {
	const plan = { reasoning: '', text: '', words: 0, call: null, status: 0, hang: false };
	let closing = 'Done.';
	let seen = 0;

	for (const line of directives) {
		const [, verb, rest] = /^!(\w+)\s?(.*)$/s.exec(line);
		const args = /^(\S+)\s?(.*)$/s.exec(rest);
		const current = seen === done;		/* this directive belongs to the present request */

		switch (verb) {
			case 'say': if (current) plan.text += rest; break;
			case 'reason': if (current) plan.reasoning += rest; break;
			case 'status': if (current) plan.status = Number(rest); break;
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
				if (current)
					return { ...plan, words: 0, call: { kind: 'run', command: rest } };
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
	run: ['bash', 'run_shell_command', 'shell', 'Bash'],
};

/* The directory the agent works in, as it tells the model. */
function workingDirectory(messages) {
	const all = messages.map(textOf).join('\n');
	const found = /working (?:directory|in the directory|dir)\W{1,4}(\/[^\s`'"<>]+)/i.exec(all);
	return found ? found[1].replace(/[.,;]$/, '') : null;
}

/* The call as {name, args}, with the argument names that this agent's schema declares. */
function toolCall(call, tools, messages) {
	const declared = tools.map((t) => t.function ?? t)
		.find((t) => TOOL_NAMES[call.kind].includes(t.name));
	if (!declared)
		return null;
	const names = Object.keys(declared.parameters?.properties ?? {});
	const pick = (pattern) => names.find((name) => pattern.test(name));
	const args = {};

	if (call.kind !== 'run') {
		const base = workingDirectory(messages);
		args[pick(/^(file_?path|path)$/i) ?? 'path'] = base ? path.join(base, call.file) : call.file;
		if (call.kind === 'write')
			args[pick(/^(content|text)$/i) ?? 'content'] = call.content;
	} else {
		args[pick(/^command$/i) ?? 'command'] = call.command;
		if (pick(/^description$/i))
			args[pick(/^description$/i)] = 'Run a command of the test';
		if (pick(/^is_background$/i))
			args[pick(/^is_background$/i)] = false;
	}
	return { name: declared.name, args };
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

function sendError(response, status, message) {
	sendJson(response, status, { error: { message, type: 'stub_error', code: String(status) } });
}

/* One complete answer, in one piece. */
function sendWhole(response, head, plan, call) {
	const message = { role: 'assistant', content: plan.text || null };
	if (plan.reasoning)
		message.reasoning_content = plan.reasoning;
	if (call)
		message.tool_calls = [{ id: `call_${serial}`, type: 'function',
			function: { name: call.name, arguments: JSON.stringify(call.args) } }];
	sendJson(response, 200, { ...head, object: 'chat.completion', usage: USAGE,
		choices: [{ index: 0, message, finish_reason: call ? 'tool_calls' : 'stop' }] });
}

/* The same as server-sent events; the arguments of a tool call come in two pieces, as real models do it. */
function sendStream(response, head, plan, call) {
	response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
	const send = (value) => response.write(`data: ${JSON.stringify(value)}\n\n`);
	const delta = (d, finish = null) => send({ ...head, object: 'chat.completion.chunk',
		choices: [{ index: 0, delta: d, finish_reason: finish }] });

	delta({ role: 'assistant', content: '' });
	if (plan.reasoning)
		delta({ reasoning_content: plan.reasoning });
	for (const piece of plan.text.match(/\S+\s*/g) ?? [])
		delta({ content: piece });
	if (call) {
		const text = JSON.stringify(call.args);
		const cut = Math.ceil(text.length / 2);
		delta({ tool_calls: [{ index: 0, id: `call_${serial}`, type: 'function',
			function: { name: call.name, arguments: '' } }] });
		delta({ tool_calls: [{ index: 0, function: { arguments: text.slice(0, cut) } }] });
		delta({ tool_calls: [{ index: 0, function: { arguments: text.slice(cut) } }] });
	}

	let word = 0;
	const finish = () => {
		delta({}, call ? 'tool_calls' : 'stop');
		send({ ...head, object: 'chat.completion.chunk', choices: [], usage: USAGE });
		response.write('data: [DONE]\n\n');
		response.end();
	};
	const words = () => {
		while (word < plan.words && !response.destroyed) {
			word++;
			delta({ content: `word${word} ` });
			if (response.writableNeedDrain)
				return response.once('drain', words);
		}
		finish();
	};
	words();
}

function chat(request, response, body) {
	const messages = body.messages ?? [];
	const tools = body.tools ?? [];
	const script = tools.length > 0 ? scriptOf(messages) : { directives: [], done: 0 };
	const plan = script.directives.length > 0 ? planOf(script)
		: planOf({ directives: ['!end Scripted answer'], done: 0 });
	const call = plan.call ? toolCall(plan.call, tools, messages) : null;

	serial++;
	if (plan.call && !call)
		plan.text += ` (no tool for ${plan.call.kind})`;
	const entry = { path: request.url, stream: body.stream === true, model: body.model,
		tools: tools.map((t) => t.function?.name ?? t.name), script: script.directives, step: script.done,
		answer: call ? call : plan.text };
	if (process.env.BOOCODER_STUB_BODIES)
		entry.body = body;
	log(entry);

	if (plan.hang)
		return;
	if (plan.status)
		return sendError(response, plan.status, `scripted status ${plan.status}`);
	const head = { id: `chatcmpl-${serial}`, created: Math.floor(Date.now() / 1000), model: body.model };
	(body.stream ? sendStream : sendWhole)(response, head, plan, call);
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
				data: ['stub-model', 'stub-small'].map((id) => ({ id, object: 'model', owned_by: 'boocoder' })) });
		if (request.method !== 'POST' || !where.endsWith('/chat/completions')) {
			log({ path: request.url, refused: true });
			return sendError(response, 404, 'no such thing here');
		}
		let body;
		try {
			body = JSON.parse(Buffer.concat(chunks).toString('utf8'));
		} catch (error) {
			return sendError(response, 400, `bad JSON: ${error.message}`);
		}
		chat(request, response, body);
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
