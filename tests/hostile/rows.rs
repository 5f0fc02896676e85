//! Rows of the hostile table that are one program each: what it does, how it is run, how it may end.
//!
//! The code of a row is the body of an async function, run in code mode with small limits; a row may also run as
//! a deployed worker. What a row returns is its proof: rows that must survive return `"survived"`.

/// How an attack may end, as stable codes. `done` means it returned `"survived"`.
pub(super) type Codes = &'static [&'static str];

/// Stopped in place.
const STOPPED: Codes = &["limit_cpu", "limit_wall"];
/// Stopped in place, or the isolate host was replaced.
const STOPPED_OR_KILLED: Codes = &["limit_cpu", "limit_wall", "host_fault"];
/// Stopped in place for time or for memory.
const STOPPED_OR_MEMORY: Codes = &["limit_cpu", "limit_wall", "limit_heap"];
/// Out of memory in place, or V8 aborted and the host was replaced.
const MEMORY: Codes = &["limit_heap", "limit_external", "limit_cpu", "limit_wall", "host_fault"];
/// An exception that the guest survives.
const SURVIVES: Codes = &["done"];
/// An exception, caught or not.
const THROWS: Codes = &["done", "guest_error"];
/// Anything that is an answer: the row only asks that everybody else is well.
const ANY: Codes = &[
    "done",
    "guest_error",
    "refused",
    "hung",
    "limit_cpu",
    "limit_wall",
    "limit_heap",
    "limit_external",
    "host_fault",
];

/// One attack.
pub(super) struct Row {
    /// Row number in the table, with a letter where a row has several programs.
    pub(super) id: &'static str,
    /// What it does.
    pub(super) name: &'static str,
    /// The body of an async function.
    pub(super) code: &'static str,
    /// How it may end.
    pub(super) allowed: Codes,
    /// Whether it also runs as a deployed worker.
    pub(super) deployed: bool,
}

pub(super) const fn row(id: &'static str, name: &'static str, allowed: Codes, code: &'static str) -> Row {
    Row { id, name, code, allowed, deployed: false }
}

const fn both(id: &'static str, name: &'static str, allowed: Codes, code: &'static str) -> Row {
    Row { id, name, code, allowed, deployed: true }
}

/// Rows 1 to 18: processor time.
pub(super) const CPU: &[Row] = &[
    both("1", "endless loop", STOPPED, "for(;;);"),
    // Optimised loops whose bodies call only builtins once lost their stack check to unrolling.
    row(
        "1b",
        "optimised loop that only allocates",
        STOPPED_OR_MEMORY,
        "let s='';const f=()=>{for(let i=0;i<1e9;i++){for(let j=0;j<8;j++)s+='abcdefghijklmnop'}};for(;;)f()",
    ),
    row(
        "1c",
        "optimised loop of array destructuring",
        STOPPED,
        "let x=1,y=2;const f=()=>{for(let i=0;i<1e9;i++){[x,y]=[y,x+1|0]}};for(;;)f()",
    ),
    row(
        "1d",
        "optimised loop over a typed array",
        STOPPED,
        "const t=new Float64Array(1024);let x=0;const f=()=>{for(let i=0;i<1e9;i++){t[i&1023]=x;x+=t[(i+1)&1023]}};for(;;)f()",
    ),
    row(
        "1e",
        "optimised loop of a regular expression",
        STOPPED,
        "const r=/b/g;const f=()=>{for(let i=0;i<1e9;i++){r.exec('bab')}};for(;;)f()",
    ),
    row(
        "1f",
        "optimised loop over a Map",
        STOPPED,
        "const m=new Map();let x=0;const f=()=>{for(let i=0;i<1e9;i++){m.set(x&1023,x);x++}};for(;;)f()",
    ),
    row("2", "loops in try and finally", STOPPED, "for(;;){try{for(;;);}finally{for(;;);}}"),
    both("3", "catch and recurse", STOPPED, "const f=()=>{try{f()}catch{f()}};f()"),
    row("4", "catastrophic regular expression", STOPPED, "return /^(a+)+$/.test('a'.repeat(60)+'!')"),
    row("5", "microtask storm", STOPPED, "const f=()=>queueMicrotask(f);f();await new Promise(()=>{})"),
    row("5b", "promise storm", STOPPED, "for(;;)await null"),
    row(
        "6",
        "timer ping-pong",
        STOPPED,
        "const f=()=>{for(let i=0;i<1e5;i++);setTimeout(f,0)};f();await new Promise(()=>{})",
    ),
    row(
        "7a",
        "indexOf on an array-like",
        STOPPED_OR_KILLED,
        "Array.prototype.indexOf.call({length:2**53-1},1)",
    ),
    row(
        "7b",
        "includes on an array-like",
        STOPPED_OR_KILLED,
        "Array.prototype.includes.call({length:2**53-1},1)",
    ),
    row(
        "7c",
        "lastIndexOf on an array-like",
        STOPPED_OR_KILLED,
        "Array.prototype.lastIndexOf.call({length:2**53-1},1)",
    ),
    row(
        "7d",
        "reverse on an array-like",
        STOPPED_OR_KILLED,
        "Array.prototype.reverse.call({length:2**53-1})",
    ),
    row(
        "7e",
        "copyWithin on an array-like",
        STOPPED_OR_KILLED,
        "Array.prototype.copyWithin.call({length:2**53-1},1,0)",
    ),
    row(
        "7f",
        "every on an array-like",
        STOPPED_OR_KILLED,
        "Array.prototype.every.call({length:2**53-1},()=>true)",
    ),
    row(
        "7g",
        "some on an array-like",
        STOPPED_OR_KILLED,
        "Array.prototype.some.call({length:2**53-1},()=>false)",
    ),
    row("7h", "forEach on a huge sparse array", STOPPED_OR_KILLED, "new Array(2**32-1).forEach(()=>{})"),
    row(
        "8",
        "lastIndexOf of a long needle",
        STOPPED_OR_KILLED,
        "return 'a'.repeat(2**22).lastIndexOf('a'.repeat(2**20)+'b')",
    ),
    row("9a", "Array.from of a huge length", MEMORY, "Array.from({length:2**32-1})"),
    row("9b", "fill of a huge array", MEMORY, "new Array(2**27).fill(0)"),
    row("10", "JSON.parse of brackets", ANY, "JSON.parse('['.repeat(5e7))"),
    row("11a", "BigInt of a long text", ANY, "BigInt('1'.repeat(1e8))"),
    row("11b", "giant power", ANY, "2n**(2n**29n)*3n**(2n**20n)"),
    row("12", "sort with an endless comparator", STOPPED, "[...Array(1000).keys()].sort(()=>{for(;;);})"),
    row(
        "6b",
        "intervals without a pause",
        STOPPED,
        "for(let i=0;i<100;i++)setInterval(()=>{for(let j=0;j<1e4;j++);},0);await new Promise(()=>{})",
    ),
    row(
        "16b",
        "native computation on a helper thread",
        STOPPED_OR_KILLED,
        "const k=await crypto.subtle.importKey('raw',new Uint8Array(8),'PBKDF2',false,['deriveBits']);\
         await crypto.subtle.deriveBits({name:'PBKDF2',hash:'SHA-256',salt:new Uint8Array(8),iterations:2e9},k,256)",
    ),
    row(
        "16c",
        "a key derivation without an end, where it is called",
        STOPPED,
        "const {pbkdf2Sync}=await import('node:crypto');pbkdf2Sync('p','s',2**31-1,64,'sha512')",
    ),
    row(
        "16d",
        "a memory-hard one",
        STOPPED,
        "const {scryptSync}=await import('node:crypto');scryptSync('p','s',8,{N:8192,r:8,p:15000,maxmem:2**40})",
    ),
    row(
        "16e",
        "hashes that are begun and kept",
        ANY,
        "const {createHash}=await import('node:crypto');const kept=[];for(;;)kept.push(createHash('sha512'))",
    ),
    row("13", "JSON.stringify with an endless toJSON", STOPPED, "JSON.stringify({toJSON(){for(;;);}})"),
    row(
        "14",
        "Atomics.wait",
        SURVIVES,
        "try{Atomics.wait(new Int32Array(new SharedArrayBuffer(4)),0,0)}catch(e){return 'survived'}",
    ),
    row("17a", "parser bomb in a regular expression", ANY, "new RegExp('('.repeat(1e6))"),
    row(
        "17b",
        "nested quantifiers",
        ANY,
        "new RegExp('(?:'.repeat(50)+'a'+'{1,1000})'.repeat(50)).test('a'.repeat(1e5))",
    ),
    row(
        "18a",
        "structuredClone of a deep graph",
        ANY,
        "let o={};for(let i=0;i<1e6;i++)o={o};structuredClone(o)",
    ),
    row(
        "18b",
        "structuredClone of a huge graph",
        ANY,
        "structuredClone(Array.from({length:3e6},(_, i)=>({i})))",
    ),
];

/// Rows 19 to 31: memory.
pub(super) const MEMORY_ROWS: &[Row] = &[
    both("19", "array that grows", MEMORY, "const a=[];for(;;)a.push(new Array(1000).fill(Math.random()))"),
    row("20", "spread of a long text", MEMORY, "[...'.'.repeat(5e8)]"),
    row("21", "split of a long text", MEMORY, "'a'.repeat(2**28).split('')"),
    row("22", "sort of a huge array-like", ANY, "Array.prototype.sort.call({length:2**32-1})"),
    row(
        "23",
        "many array buffers",
        &["done", "limit_external", "limit_heap", "guest_error"],
        "const keep=[];try{for(;;)keep.push(new ArrayBuffer(1<<20))}catch(e){keep.length=0;return 'survived'}",
    ),
    row(
        "24",
        "many wasm memories",
        &["limit_external", "done"],
        "const keep=[];try{for(;;)keep.push(new WebAssembly.Memory({initial:64}))}catch(e){keep.length=0;return 'survived'}",
    ),
    row(
        "24b",
        "a growing wasm memory",
        &["done", "limit_external", "limit_heap", "guest_error"],
        "const m=new WebAssembly.Memory({initial:1});try{for(;;)m.grow(64)}catch(e){return 'survived'}",
    ),
    row(
        "24c",
        "wasm memories that are used",
        &["limit_external"],
        "const keep=[];for(;;){const m=new WebAssembly.Memory({initial:128});new Uint8Array(m.buffer).fill(1);keep.push(m)}",
    ),
    row(
        "25",
        "rope that is flattened",
        ANY,
        "let s='abc';for(let i=0;i<27;i++)s+=s;return /x/.test(s)?'found':'survived'",
    ),
    row("26a", "Map that grows", ANY, "const m=new Map();for(let i=0;;i++)m.set(i,{i})"),
    row("26b", "Set that grows", ANY, "const s=new Set();for(let i=0;;i++)s.add('x'+i)"),
    row("26c", "registered symbols", ANY, "for(let i=0;;i++)Symbol.for('some long symbol name '+i)"),
    row(
        "26d",
        "closures",
        MEMORY,
        "let f=()=>0;for(;;){const g=f,a=new Array(100).fill(1);f=()=>g()+a.length}",
    ),
    row(
        "27a",
        "huge resizable buffer",
        SURVIVES,
        "try{new ArrayBuffer(1,{maxByteLength:2**40})}catch(e){return 'survived'}return 'survived'",
    ),
    row(
        "27b",
        "shared memory",
        SURVIVES,
        "try{new SharedArrayBuffer(1024);return 'has shared memory'}catch(e){return 'survived'}",
    ),
    row(
        "28",
        "goes on after the limit was raised",
        MEMORY,
        "const keep=[];for(;;){try{for(;;)keep.push(new Array(10000).fill(0))}catch{}}",
    ),
    row(
        "29a",
        "a million headers",
        ANY,
        "const keep=[];for(;;){const h=new Headers();for(let i=0;i<100;i++)h.append('x'+i,'y'.repeat(1000));keep.push(h)}",
    ),
    row(
        "29b",
        "endless URLs",
        ANY,
        "const keep=[];for(let i=0;;i++)keep.push(new URL('https://example.com/'+'x'.repeat(1000)+i))",
    ),
    row("29c", "endless blobs", ANY, "const keep=[];for(;;)keep.push(new Blob(['x'.repeat(1e6)]))"),
    row(
        "29e",
        "endless slices of a blob",
        &["limit_external", "limit_heap", "limit_cpu"],
        "const b=new Blob(['x'.repeat(1e6)]);const keep=[];for(;;)keep.push(b.slice())",
    ),
    row(
        "29f",
        "endless TransformStreams",
        &["limit_heap", "limit_cpu"],
        "const keep=[];for(;;){const t=new TransformStream();keep.push(t,t.readable.getReader())}",
    ),
    row(
        "29d",
        "endless encoders",
        ANY,
        "const keep=[];for(;;)keep.push(new TextEncoder().encode('x'.repeat(1e6)))",
    ),
    row(
        "30",
        "ten million timers",
        SURVIVES,
        "try{for(let i=0;i<1e7;i++)setTimeout(()=>{},1e9)}catch(e){return 'survived'}return 'no cap'",
    ),
    row(
        "31",
        "decompression bomb",
        ANY,
        "const zip=async(b,s)=>new Response(new Blob([b]).stream().pipeThrough(s)).arrayBuffer();\
         const bomb=await zip(new Uint8Array(8e6),new CompressionStream('gzip'));\
         const keep=[];for(;;)keep.push(await zip(bomb,new DecompressionStream('gzip')))",
    ),
];

/// Rows 32 to 35: the stack.
pub(super) const STACK: &[Row] = &[
    both(
        "32",
        "recursion",
        SURVIVES,
        "const f=()=>f()+1;try{f()}catch(e){return e instanceof RangeError?'survived':e.name}",
    ),
    row(
        "33a",
        "nested getters",
        SURVIVES,
        "const o={get x(){return this.x}};try{o.x}catch(e){return e instanceof RangeError?'survived':e.name}",
    ),
    row(
        "33b",
        "chain of proxies",
        THROWS,
        "let p={};for(let i=0;i<1e5;i++)p=new Proxy(p,{});try{p.x}catch(e){return 'survived'}return 'survived'",
    ),
    row(
        "33c",
        "JSON reviver",
        THROWS,
        "try{JSON.parse('['.repeat(5000)+']'.repeat(5000),function r(k,v){return JSON.parse('[1]',r)})}catch(e){return 'survived'}return 'survived'",
    ),
    row(
        "34a",
        "through URL and back",
        SURVIVES,
        "const o={toString(){return new URL(o).href}};try{new URL(o)}catch(e){return 'survived'}",
    ),
    row(
        "34b",
        "through structuredClone and back",
        SURVIVES,
        "const o={get x(){return structuredClone(o)}};try{structuredClone(o)}catch(e){return 'survived'}",
    ),
    row(
        "34c",
        "through encoders and back",
        SURVIVES,
        "const o={toString(){return btoa(o)}};try{btoa(o)}catch(e){return 'survived'}",
    ),
    row(
        "34d",
        "through event listeners and back",
        ANY,
        "const t=new EventTarget();t.addEventListener('x',()=>t.dispatchEvent(new Event('x')));\
         try{t.dispatchEvent(new Event('x'))}catch(e){}return 'survived'",
    ),
];

/// Rows 46 and 50 to 58: code generation, imports and races with termination.
pub(super) const CODE: &[Row] = &[
    row(
        "46",
        "code from text",
        SURVIVES,
        "const A=(async()=>{}).constructor,G=(function*(){}).constructor;\
         for(const f of [()=>eval('1'),()=>(0,eval)('1'),()=>new Function('1'),()=>A('1'),()=>G('1'),\
         ()=>(()=>{}).constructor('1'),()=>Reflect.construct(Function,['1'])]){\
         try{f();return 'ran '+f}catch(e){if(e.name!=='EvalError')return e.name+' of '+f}}\
         return typeof ShadowRealm==='undefined'?'survived':'has ShadowRealm'",
    ),
    row(
        "50",
        "imports from elsewhere",
        SURVIVES,
        "for(const s of ['file:///etc/passwd','http://127.0.0.1/x.js','https://example.com/x.js','data:text/javascript,export default 1',\
         'blob:https://example.com/1','ext:core/ops','ext:core/mod.js','ext:deno_web/00_infra.js','node:fs','node:child_process','/etc/passwd','../../etc/passwd']){\
         let m;try{m=await import(s)}catch(e){continue}if(!s.startsWith('node:'))return 'imported '+s;\
         for(const f of [()=>m.readFileSync('/etc/passwd'),()=>m.execSync('id')])try{f();return s+' works'}catch(e){}}\
         return 'survived'",
    ),
    row(
        "51",
        "computed import",
        SURVIVES,
        "for(const s of ['ext:'+'core/ops',{toString:()=>'ext:core/mod.js'},['ext:core/ops']]){\
         try{await import(s);return 'imported '+s}catch(e){}}\
         try{await (0,eval)('import(\"ext:core/ops\")');return 'imported in eval'}catch(e){}return 'survived'",
    ),
    row(
        "52",
        "wrong import attributes",
        SURVIVES,
        "for(const type of ['css','bytes','text','wasm','__proto__','']){\
         try{await import('data:,x',{with:{type}});return 'imported '+type}catch(e){}}return 'survived'",
    ),
    row(
        "53",
        "import.meta",
        SURVIVES,
        "const text=JSON.stringify(Object.entries(import.meta).map(String));\
         return /\\/(work|home|root|tmp|usr|var|opt)\\//.test(text)?text:'survived'",
    ),
    row(
        "53b",
        "stacks name no host file",
        SURVIVES,
        "const s=[];try{null.x}catch(e){s.push(e.stack)}try{new URL('x')}catch(e){s.push(e.stack)}\
         try{await fetch('http://')}catch(e){s.push(e.stack)}\
         return /\\/(work|home|root|tmp|usr|registry)\\/|\\.rs\\b/.test(s.join())?s.join():'survived'",
    ),
    row("56", "terminated in a microtask", STOPPED, "await null;for(;;);"),
    row("58", "a finally that would answer", STOPPED, "try{for(;;);}finally{return 'survived'}"),
    row(
        "58b",
        "an await after the limit",
        STOPPED,
        "for(;;){try{for(;;)await null}catch{}finally{await null}}",
    ),
];

/// Row 64: delays.
pub(super) const DELAYS: &[Row] = &[row(
    "64",
    "delays that are not times",
    SURVIVES,
    "let n=0;const wait=d=>new Promise(r=>setTimeout(()=>{n++;r()},d));\
     await Promise.all([NaN,-1,1e308,Infinity,-Infinity,'x',{},[],null,undefined,2**53,{valueOf:()=>-5}].map(wait));\
     try{setTimeout(()=>{},{valueOf(){throw new RangeError('trap')}});return 'no throw'}catch(e){if(e.message!=='trap')return e.message}\
     try{setTimeout(()=>{},1n);return 'took a BigInt'}catch(e){}\
     return n===12?'survived':String(n)",
)];

/// Row 65: the console.
pub(super) const CONSOLE: &[Row] = &[
    row("65a", "endless lines", ANY, "for(let i=0;i<1e7;i++)console.log('line',i);return 'survived'"),
    row("65b", "one line of 100 MB", ANY, "console.log('x'.repeat(1e8));return 'survived'"),
    row(
        "65c",
        "values that fight back",
        ANY,
        "const c={};c.c=c;console.log(c);\
         const p=new Proxy({},{get(){throw 1},ownKeys(){throw 2},getPrototypeOf(){throw 3}});\
         try{console.log(p)}catch{}\
         try{console.log({get a(){throw 4},toString(){throw 5},[Symbol.toPrimitive](){throw 6}})}catch{}\
         let deep={};for(let i=0;i<1e5;i++)deep={deep};try{console.log(deep)}catch{}\
         try{console.log(new Array(1e6).fill({a:1}))}catch{}return 'survived'",
    ),
];

/// Rows 61, 62 and 71: clocks, threads, and streams that are in use.
pub(super) const CLOCKS: &[Row] = &[
    both(
        "61a",
        "clocks while code computes",
        SURVIVES,
        "const d=Date.now(),p=performance.now(),f=new Intl.DateTimeFormat('en',{fractionalSecondDigits:3}).format();\
         let x=0;for(let i=0;i<3e6;i++)x+=i;\
         const same=Date.now()===d&&performance.now()===p&&new Intl.DateTimeFormat('en',{fractionalSecondDigits:3}).format()===f;\
         return same&&new Date().getTime()===d?'survived':'a clock moved'",
    ),
    row(
        "61b",
        "time of errors and events while code computes",
        SURVIVES,
        "const a=new Event('x').timeStamp;let x=0;for(let i=0;i<3e6;i++)x+=i;\
         return new Event('x').timeStamp===a?'survived':'a clock moved'",
    ),
    row(
        "62a",
        "threads that could count",
        SURVIVES,
        "const found=['SharedArrayBuffer','Worker','SharedWorker','Atomics.waitAsync'].filter(n=>n.split('.').reduce((o,k)=>o?.[k],globalThis)!==undefined);\
         return found.some(n=>n!=='Atomics.waitAsync')?found.join():'survived'",
    ),
    row(
        "71a",
        "bodies read twice, streams locked twice",
        SURVIVES,
        "const words=[];const t=async f=>{try{await f();words.push('passed '+f)}catch(e){if(!(e instanceof TypeError))words.push(e.name)}};\
         const r=new Response('x');await r.text();await t(()=>r.text());await t(()=>r.clone());\
         const s=new ReadableStream({});s.getReader();await t(()=>s.getReader());await t(()=>new Response(s));await t(()=>s.tee());await t(()=>s.cancel());\
         await t(()=>s.pipeTo(new WritableStream()));return words.length?words.join():'survived'",
    ),
];

/// Every table, in order.
pub(super) const TABLES: &[&[Row]] =
    &[CPU, MEMORY_ROWS, STACK, super::realm::HOST, CODE, DELAYS, CLOCKS, CONSOLE];
