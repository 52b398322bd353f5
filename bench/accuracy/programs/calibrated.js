// calibrated.js KIND AMOUNT: as calibrated.c, in JavaScript for Node; as calibrated.py it asks
// the kernel what its processes hold. Node's threads are workers; its children are itself.
'use strict';
const childProcess = require('child_process');
const fs = require('fs');
const workers = require('worker_threads');

const TASKS = 4;
const PROCESSES = 4;
const PAGE = 4096;
const KERNEL_STACK = 16 * 1024;
const held = [];

function usedNs() {
    const usage = process.cpuUsage(); // getrusage(2)
    return (usage.user + usage.system) * 1000;
}

function burn(ns) {
    const end = usedNs() + ns;
    while (usedNs() < end)
        for (let i = 0; i < 20000; i++);
}

// A worker cannot ask for its own time: it counts to what takes its share, more or less.
function count(ns) {
    for (let i = 0; i < ns; i++);
}

function burnInKernel(ns) {
    const zero = fs.openSync('/dev/zero');
    const buffer = Buffer.alloc(1 << 16);
    const end = usedNs() + ns;
    while (usedNs() < end)
        fs.readSync(zero, buffer);
}

async function burnByThreads(ns) {
    const started = Array.from({length: TASKS}, () => new workers.Worker(__filename, {workerData: ns / TASKS}));
    await Promise.all(started.map(worker => new Promise(resolve => worker.on('exit', resolve))));
}

function again(kind, amount, options) {
    return childProcess.spawn(process.execPath, [...process.execArgv, __filename, kind, String(amount)], options);
}

// Each report is a line in a pipe that all have as fd 3, so that nobody's end is waited for but by its report.
async function reports(kind, amount, processes, expected) {
    const path = '/tmp/reports';
    fs.writeFileSync(path, '');
    const fd = fs.openSync(path, 'a');
    const children = Array.from({length: processes}, () => again(kind, amount, {stdio: ['pipe', 'ignore', 'inherit', fd]}));
    let lines = [];
    while (lines.length < expected) {
        await new Promise(resolve => setTimeout(resolve, 5));
        lines = fs.readFileSync(path, 'latin1').split('\n').slice(0, -1);
    }
    fs.unlinkSync(path);
    return {children, sum: lines.map(Number).reduce((a, b) => a + b, 0)};
}

function touchHeap(size) {
    const memory = Buffer.allocUnsafeSlow(size);
    for (let at = 0; at < size; at += PAGE)
        memory[at] = 1;
    held.push(memory);
}

function writeFile(path, size) {
    const fd = fs.openSync(path, 'w');
    const block = Buffer.alloc(1 << 20);
    for (let at = 0; at < size; at += block.length)
        fs.writeSync(fd, block);
    return size; // no process has it mapped
}

function kernelsWord(path) {
    const found = {};
    for (const [, name, number] of fs.readFileSync(path, 'latin1').matchAll(/^(\w+):\s+(\d+)/gm))
        found[name] = Number(number);
    return found;
}

function ownBytes() {
    const status = kernelsWord('/proc/self/status');
    const maps = kernelsWord('/proc/self/smaps_rollup');
    const kib = maps.Pss_Anon + maps.Pss_Shmem + status.VmHWM - status.VmRSS;
    return (kib + status.VmPTE) * 1024 + status.Threads * KERNEL_STACK;
}

// One of several that hold their share until the first of them lets go.
function holdAndReport(size) {
    touchHeap(size);
    fs.writeSync(3, `${ownBytes()}\n`);
    process.stdin.on('end', () => process.reallyExit(0)).resume();
}

function burnAndReport(ns) {
    burn(ns);
    reportTime();
}

function reportTime() {
    fs.writeSync(3, `${usedNs()}\n`);
    process.reallyExit(0);
}

function leaveAnOrphan(ns) {
    again('burn', ns, {detached: true, stdio: ['ignore', 'ignore', 'inherit', 3]});
    reportTime();
}

async function main() {
    const [kind, words] = process.argv.slice(2);
    const amount = Number(words);
    const ns = amount * 1e6;
    const size = amount * 2 ** 20;
    let others = 0;
    switch (kind) {
    case 'burn': return burnAndReport(amount);
    case 'leave': return leaveAnOrphan(amount);
    case 'hold': return holdAndReport(amount);
    case 'spin': burn(ns); break;
    case 'system': burnInKernel(ns); break;
    case 'threads': await burnByThreads(ns); break;
    case 'children': others = (await reports('burn', ns / TASKS, TASKS, TASKS)).sum; break;
    case 'orphans': others = (await reports('leave', ns / TASKS, TASKS, 2 * TASKS)).sum; break;
    case 'touch': touchHeap(size); break;
    case 'tmpfs': others = writeFile('/tmp/file', size); break;
    case 'shm': others = writeFile('/dev/shm/memory', size); break;
    case 'many': others = (await reports('hold', size / PROCESSES, PROCESSES, PROCESSES)).sum; break;
    default: return process.reallyExit(2);
    }
    const burns = ['spin', 'threads', 'children', 'orphans', 'system'].includes(kind);
    const report = burns ? {cpu_ns: usedNs() + others} : {bytes: size, own_bytes: ownBytes() + others};
    fs.writeSync(1, JSON.stringify(report) + '\n');
    process.reallyExit(0); // what node does at its end, nobody could report
}

if (workers.isMainThread)
    main();
else
    count(workers.workerData);
