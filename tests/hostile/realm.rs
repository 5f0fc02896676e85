//! Rows 36 to 45 and 99 to 101: the host's own objects and ops, as a guest attacks them from inside its realm. The form of a row is
//! that of `rows.rs`.

use super::rows::{Codes, Row, row};

/// An exception that the guest survives.
const SURVIVES: Codes = &["done"];
/// The guest broke its own realm: it may end as it likes, for itself alone.
const OWN_FAULT: Codes = &["done", "guest_error", "hung", "limit_cpu", "limit_wall"];

/// The rows, in order.
pub(super) const HOST: &[Row] = &[
    row(
        "36a",
        "a host's op in what a guest can reach",
        SURVIVES,
        "const seen=new Set(),queue=[globalThis];\
         const add=v=>{if((typeof v==='object'&&v)||typeof v==='function'){if(!seen.has(v)){seen.add(v);queue.push(v)}}};\
         while(queue.length&&seen.size<200000){const o=queue.pop();\
         if(typeof o==='function'&&/^op_/.test(Object.getOwnPropertyDescriptor(o,'name')?.value))return 'reached '+o.name;\
         add(Object.getPrototypeOf(o));for(const k of Reflect.ownKeys(o)){const d=Object.getOwnPropertyDescriptor(o,k);\
         if(!d)continue;add(d.value);add(d.get);add(d.set);if(d.get)try{add(o[k])}catch{}}}\
         return seen.size>500?'survived':'looked at '+seen.size",
    ),
    row(
        "36b",
        "names of the host",
        SURVIVES,
        "for(const n of ['Deno','__bootstrap','__atoll','core','ops','internals','primordials','require','print'])\
         if(n in globalThis)return n;return 'survived'",
    ),
    row(
        "36c",
        "a host's op behind a node: module, loaded into a realm that takes down everything it sees",
        SURVIVES,
        "const got=[],apply=Reflect.apply,grab=x=>{got[got.length]=x},all=a=>{for(let i=0;i<a.length;i++)grab(a[i])};\
         const spy=(o,names)=>{for(let i=0;i<names.length;i++){const f=o[names[i]];\
         if(f)o[names[i]]=function(...a){grab(this);all(a);return apply(f,this,a)}}};\
         spy(Function.prototype,['call','apply','bind']);spy(Array.prototype,['map','filter','forEach','push','pop','slice','join',Symbol.iterator]);\
         for(const C of [Map,Set,WeakMap,WeakSet])spy(C.prototype,['get','set','has','add','delete']);\
         spy(Object,['defineProperty','assign','keys','create','setPrototypeOf','freeze','entries']);\
         const keys=['core','ops','primordials','internals','handle','options'];for(let i=0;i<keys.length;i++){const k=keys[i];\
         Reflect.defineProperty(Object.prototype,k,{configurable:true,get(){grab(this)},set(v){grab(v);grab(this);\
         Reflect.defineProperty(this,k,{value:v,writable:true,enumerable:true,configurable:true})}})}\
         const names=['assert','async_hooks','buffer','console','constants','crypto','diagnostics_channel','dns','events','fs','http','https',\
         'module','net','os','path','perf_hooks','process','punycode','querystring','stream','stream/consumers','stream/promises','stream/web',\
         'string_decoder','timers','timers/promises','tls','tty','url','util','util/types','zlib'];\
         for(let i=0;i<names.length;i++)grab(await import('node:'+names[i]));\
         const c=process.getBuiltinModule('crypto');c.createHash('md5').update('a').digest('hex');c.pbkdf2Sync('a','b',1,8,'sha1');\
         process.getBuiltinModule('util').inspect({a:[1,new Map([[1,2]])]});Buffer.from('abc').toString('hex');\
         for await(const x of process.getBuiltinModule('stream').Readable.from(['a']))grab(x);\
         for(let i=0;i<keys.length;i++)delete Object.prototype[keys[i]];\
         const seen=new Set(),queue=[];const add=v=>{if((typeof v==='object'&&v)||typeof v==='function'){if(!seen.has(v)){seen.add(v);queue[queue.length]=v}}};\
         const last=got.length;for(let i=0;i<last;i++)add(got[i]);add(globalThis);\
         for(let n=0;n<queue.length&&n<200000;n++){const o=queue[n];const own=Reflect.ownKeys(o);\
         if(own.includes('loadExtScript')||own.includes('ops'))return 'reached the host';\
         if(typeof o==='function'&&/^op_/.test(Object.getOwnPropertyDescriptor(o,'name')?.value))return 'reached '+o.name;\
         add(Object.getPrototypeOf(o));for(let i=0;i<own.length;i++){const d=Object.getOwnPropertyDescriptor(o,own[i]);if(!d)continue;\
         add(d.value);add(d.get);add(d.set);if(d.get)try{add(o[own[i]])}catch{}}}\
         return seen.size>2000?'survived':'looked at '+seen.size",
    ),
    row(
        "36d",
        "a Buffer of memory that was another's",
        SURVIVES,
        "const {Buffer,SlowBuffer}=await import('node:buffer');\
         for(let i=0;i<400;i++)for(const b of [Buffer.allocUnsafe(i*37),Buffer.allocUnsafeSlow(i*37),new Buffer(i),SlowBuffer(i)]){\
         for(let j=0;j<b.length;j++)if(b[j]!==0)return 'byte '+b[j];b.fill(0xee)}return 'survived'",
    ),
    row(
        "37a",
        "polluted iterators",
        OWN_FAULT,
        "Array.prototype[Symbol.iterator]=function(){throw new Error('mine')};\
         Map.prototype[Symbol.iterator]=Set.prototype[Symbol.iterator]=Array.prototype[Symbol.iterator];\
         const h=new Headers({a:'b'});const r=new Response('x',{headers:h});if(await r.text()!=='x')return 'broken';\
         new URL('https://a/?b=c').searchParams.get('b');await new Promise(r=>setTimeout(r,1));return 'survived'",
    ),
    row(
        "37b",
        "a polluted Promise.prototype.then",
        OWN_FAULT,
        "let n=0;const then=Promise.prototype.then;Promise.prototype.then=function(...a){n++;return then.apply(this,a)};\
         await new Response('x').text();await new Response(new Blob(['y']).stream()).arrayBuffer();\
         await new Promise(r=>setTimeout(r,1));return n===0?'survived':'the host called it '+n+' times'",
    ),
    row(
        "37c",
        "a polluted Object.prototype.then",
        OWN_FAULT,
        "Object.prototype.then=function(f){f('mine')};const t=await new Response('x').text();return t==='x'?'survived':t",
    ),
    row(
        "37d",
        "polluted functions",
        OWN_FAULT,
        "Function.prototype.call=Function.prototype.apply=Function.prototype.bind=()=>{throw new Error('mine')};\
         Reflect.apply=()=>{throw new Error('mine')};Object.defineProperty=Object.keys=()=>{throw new Error('mine')};\
         const r=new Response('x',{headers:{a:'b'}});if(await r.text()!=='x'||r.headers.get('a')!=='b')return 'broken';return 'survived'",
    ),
    row(
        "37e",
        "polluted option bags",
        OWN_FAULT,
        "for(const k of ['get','set','value','status','headers','body','method','redirect','signal','done','stream','fatal','type','mode'])\
         Object.defineProperty(Object.prototype,k,{configurable:true,get(){throw new Error('mine: '+k)},set(){throw new Error('mine: '+k)}});\
         return 'survived'",
    ),
    row(
        "38",
        "__proto__ and constructor as keys",
        SURVIVES,
        "const o=JSON.parse('{\"__proto__\":{\"x\":1},\"constructor\":{\"prototype\":{\"y\":1}}}');\
         const c=structuredClone(o);const j=await Response.json(o).json();new Headers([['constructor','a'],['toString','b']]).get('constructor');\
         new URLSearchParams('__proto__=1&constructor=2').get('__proto__');const f=new FormData();f.append('__proto__','x');\
         return ({}).x===undefined&&({}).y===undefined&&Object.hasOwn(c,'__proto__')&&Object.hasOwn(j,'__proto__')?'survived':'polluted'",
    ),
    row(
        "39a",
        "a thenable that answers twice",
        SURVIVES,
        "return {then(f,g){f('survived');f('again');g(new Error('no'));throw 1}}",
    ),
    row("39b", "a thenable that never answers", &["hung", "limit_wall"], "return {then(){}}"),
    row(
        "39c",
        "a thenable that throws",
        &["guest_error"],
        "return {get then(){throw new RangeError('then')}}",
    ),
    row("39d", "thenables without end", OWN_FAULT, "const t={then(f){f(t)}};return t"),
    row(
        "40a",
        "buffers detached while they are read",
        SURVIVES,
        "const away=b=>structuredClone(b.buffer,{transfer:[b.buffer]});const u=()=>new Uint8Array(64).fill(65);\
         const tries=[b=>new TextDecoder().decode(b,{get stream(){away(b);return false}}),\
         b=>new Blob([b,{toString(){away(b);return 'x'}}]).text(),b=>new Response(b,{get status(){away(b);return 200}}).arrayBuffer(),\
         b=>crypto.subtle.digest({get name(){away(b);return 'SHA-256'}},b),b=>crypto.subtle.digest({toString(){away(b);return 'SHA-1'}},b),\
         b=>btoa({toString(){away(b);return b.join()}}),b=>structuredClone({get a(){away(b);return 1},b}),\
         b=>new TextEncoder().encodeInto({toString(){away(b);return 'abc'}},b),\
         b=>crypto.getRandomValues(new Proxy(b,{})),b=>new DataView(b.buffer,{valueOf(){away(b);return 0}})];\
         for(const t of tries){try{await t(u())}catch{}}return 'survived'",
    ),
    row(
        "40b",
        "buffers that shrink while they are read",
        SURVIVES,
        "const tries=[(b,u)=>new TextDecoder().decode(u,{get stream(){b.resize(0);return false}}),\
         (b,u)=>new Blob([u,{toString(){b.resize(1);return ''}}]).text(),(b,u)=>new Response(u,{get status(){b.resize(0);return 200}}).text(),\
         (b,u)=>crypto.subtle.digest({get name(){b.resize(0);return 'SHA-256'}},u),(b,u)=>structuredClone([{get a(){b.resize(0);return 1}},u]),\
         (b,u)=>new TextEncoder().encodeInto({toString(){b.resize(2);return 'abcdef'}},u)];\
         for(const t of tries){const b=new ArrayBuffer(4096,{maxByteLength:8192});try{await t(b,new Uint8Array(b))}catch{}}return 'survived'",
    ),
    row(
        "40c",
        "species and constructors of the guest",
        SURVIVES,
        "class U extends Uint8Array{static get[Symbol.species](){return function(){return new Uint8Array(0)}}}\
         class P extends Promise{static get[Symbol.species](){return function(){throw new Error('mine')}}}\
         Object.defineProperty(Uint8Array,Symbol.species,{get(){return function(){return {}}}});\
         const u=new U(64).fill(65);const texts=[];for(const f of [()=>new Blob([u]).text(),()=>new TextDecoder().decode(u),()=>new Response(u).text()])try{texts.push(await f())}catch{};\
         try{await new P(r=>r(1))}catch{}return texts.every(t=>t==='A'.repeat(64))?'survived':texts.join()",
    ),
    row(
        "41",
        "ops entered again from inside",
        SURVIVES,
        "const again=f=>{let deep=0;const o={toString(){if(deep++<3)try{f(o)}catch{}return 'https://a/'},valueOf(){if(deep++<3)try{f(o)}catch{}return 1},\
         get a(){if(deep++<3)try{f(o)}catch{}return 1},get[Symbol.toStringTag](){if(deep++<3)try{f(o)}catch{}return 'x'}};return o};\
         const calls=[o=>new URL(o),o=>new Headers([[o,o]]),o=>structuredClone(o),o=>console.log(o),o=>setTimeout(()=>{},o),o=>btoa(o),\
         o=>new Request(o),o=>new Response(o,{statusText:o}),o=>new Blob([o]),o=>new TextEncoder().encode(o),o=>crypto.subtle.digest(o,new Uint8Array(1)),\
         o=>new URLSearchParams(o),o=>fetch(o).catch(()=>{}),o=>queueMicrotask(()=>o.a),o=>reportError(o)];\
         for(const c of calls){try{await c(again(c))}catch{}}return 'survived'",
    ),
    row(
        "42",
        "methods on receivers that are not the host's",
        SURVIVES,
        "const classes=[Request,Response,Headers,URL,URLSearchParams,ReadableStream,WritableStream,TransformStream,Blob,FormData,AbortSignal,TextDecoder,CryptoKey];\
         const forged=c=>[{},1,null,Object.create(c.prototype),new Proxy({},{}),{id:1,rid:1,number:1,body:1,stream:1}];\
         for(const c of classes)for(const k of Reflect.ownKeys(c.prototype)){if(k==='constructor'||typeof k==='symbol')continue;\
         const d=Object.getOwnPropertyDescriptor(c.prototype,k);for(const r of forged(c))for(const f of [d.get,d.value]){\
         if(typeof f!=='function')continue;let v;try{v=await Reflect.apply(f,r,[1,1])}catch(e){continue}\
         if(v!==undefined&&v!==null&&v!==false)return c.name+'.'+k+' gave '+typeof v}}return 'survived'",
    ),
    row(
        "43a",
        "Error.prepareStackTrace of the guest",
        &["guest_error"],
        "Error.prepareStackTrace=()=>{throw new Error('mine')};throw new Error('x')",
    ),
    row(
        "43b",
        "a stack that throws",
        &["guest_error"],
        "const e=new Error('x');Object.defineProperty(e,'stack',{get(){throw new Error('mine')}});\
         Object.defineProperty(e,'message',{get(){throw new Error('mine')}});throw e",
    ),
    row(
        "43c",
        "a cause that leads back",
        &["guest_error"],
        "const e=new Error('x');e.cause={e,get f(){throw 1}};throw e",
    ),
    row(
        "43d",
        "a Proxy that is thrown",
        &["guest_error"],
        "throw new Proxy(new Error('x'),{get(){throw 1},getPrototypeOf(){throw 2}})",
    ),
    row(
        "43e",
        "a function that is thrown",
        &["guest_error"],
        "throw Object.assign(()=>{},{name:{},message:[],stack:1})",
    ),
    row(
        "44",
        "the host's print, by the prototypes of what is there",
        SURVIVES,
        "const seen=new Set();for(const k of Reflect.ownKeys(globalThis)){let v;try{v=globalThis[k]}catch{continue}\
         for(let o=v;o!==null&&(typeof o==='object'||typeof o==='function')&&!seen.has(o);o=Object.getPrototypeOf(o)){seen.add(o);\
         if(Object.hasOwn(o,'print')||Object.hasOwn(o,'ops'))return 'has print: '+String(k)}}return 'survived'",
    ),
    row(
        "45",
        "finalisers of a request that is over",
        SURVIVES,
        "globalThis.r=new FinalizationRegistry(()=>{for(;;);});for(let i=0;i<1e5;i++)r.register({i},i);return 'survived'",
    ),
    row(
        "99",
        "what the last execution left (first half)",
        SURVIVES,
        "if(globalThis.left||[].left||({}).left||Promise.left||fetch.left||Response.prototype.left)return 'found it';\
         globalThis.left=1;Array.prototype.left=1;Object.prototype.left=1;Promise.left=1;fetch.left=1;Response.prototype.left=1;return 'survived'",
    ),
    row(
        "100",
        "objects of the snapshot that the last execution changed (second half)",
        SURVIVES,
        "return globalThis.left||[].left||({}).left||Promise.left||fetch.left||Response.prototype.left?'found it':'survived'",
    ),
    row(
        "101",
        "memory that is not zero",
        SURVIVES,
        "const any=b=>new BigUint64Array(b).some(x=>x!==0n);for(let round=0;round<10;round++){const sizes=[8,64,1000,4096,65536];\
         for(const n of sizes){const u=new Uint8Array(n);if(any(u.buffer))return 'ArrayBuffer '+n;u.fill(0x5a);\
         const r=new ArrayBuffer(n,{maxByteLength:n*2});r.resize(n*2);if(any(r))return 'resized '+n;new Uint8Array(r).fill(0x5a)}\
         const m=new WebAssembly.Memory({initial:1});if(any(m.buffer))return 'wasm'}return 'survived'",
    ),
];
