//! Rows about a secret that is within reach of every row ([`crate::vault`]).

use super::rows::{Row, row};

/// How a row may end that does no harm.
const SURVIVES: super::rows::Codes = &["done"];
/// Stopped, with the secret in use.
const STOPPED: super::rows::Codes =
    &["limit_cpu", "limit_wall", "limit_heap", "limit_external", "host_fault"];

/// Rows 88 to 95 again, from code that attacks while it uses the secret. `tests/secrets` has the rest of them.
pub(super) const ROWS: &[Row] = &[
    row(
        "88h",
        "prints all that can be reached from the binding",
        SURVIVES,
        "const seen=new Set(),queue=[env,env.VAULT,globalThis],out=[];\
         const add=v=>{if(((typeof v==='object'&&v)||typeof v==='function')&&!seen.has(v)&&seen.size<20000){seen.add(v);queue.push(v)}\
         else if(typeof v==='string'&&out.length<5000)out.push(v)};\
         while(queue.length){const o=queue.pop();try{add(Object.getPrototypeOf(o));for(const k of Reflect.ownKeys(o)){\
         add(String(k));const d=Object.getOwnPropertyDescriptor(o,k);add(d.value);add(d.get);add(d.set);\
         if(d.get&&o!==globalThis)try{add(o[k])}catch(e){add(e.stack)}}}catch(e){add(String(e))}}\
         console.log(out.join('\\n').slice(0,200000));return out.length>100?'survived':'looked at '+out.length",
    ),
    row(
        "89h",
        "says what came back in other forms",
        SURVIVES,
        "const r=await env.VAULT.fetch(env.VAULT_URL+'/echo',{method:'POST',body:'x'.repeat(1000)});\
         const text=await r.text(),all=text+JSON.stringify([...r.headers]);\
         console.log(all);console.log(btoa(unescape(encodeURIComponent(all))));console.log(encodeURIComponent(all));\
         console.log([...new TextEncoder().encode(all)].map(b=>b.toString(16).padStart(2,'0')).join(''));\
         return text.endsWith('the end')?'survived':text.slice(-50)",
    ),
    row(
        "91h",
        "reads the answer in the smallest pieces, under compression",
        SURVIVES,
        "const r=await env.VAULT.fetch(env.VAULT_URL+'/gzip');let all='';const d=new TextDecoder();\
         for await(const piece of r.body)for(const b of piece){all+=d.decode(Uint8Array.of(b),{stream:true})}\
         console.log(all);for(let i=0;i<3;i++)console.log(btoa(unescape(encodeURIComponent(all.slice(i)))));\
         return all.endsWith('the end')?'survived':all.slice(-50)",
    ),
    row(
        "93h",
        "makes the proxy fail in every way and prints why",
        SURVIVES,
        "for(const u of [env.VAULT_URL+'/unknown',env.VAULT_URL+'/error',env.VAULT_URL+'/redirect','https://evil.test/','http://vault.test/','nonsense',\
         env.VAULT_URL.replace('//','//u:p@')+'/echo'])try{const r=await env.VAULT.fetch(u,{headers:{authorization:'Bearer guest'}});\
         console.log(u,r.status,JSON.stringify([...r.headers]),await r.text())}catch(e){console.log(u,e.name,e.message,e.stack,e.cause)}\
         return 'survived'",
    ),
    row(
        "94h",
        "spins while the answer streams",
        STOPPED,
        "const r=await env.VAULT.fetch(env.VAULT_URL+'/decoys');const reader=r.body.getReader();await reader.read();for(;;);",
    ),
    row(
        "94i",
        "dies of memory with the answer in it",
        STOPPED,
        "const keep=[];for(;;){const r=await env.VAULT.fetch(env.VAULT_URL+'/decoys');const t=await r.text();\
         for(let i=0;i<200;i++)keep.push(t.split('').reverse())}",
    ),
    row(
        "95h",
        "throws what came back",
        &["guest_error"],
        "const r=await env.VAULT.fetch(env.VAULT_URL+'/echo');const e=new Error(await r.text());\
         e.name=JSON.stringify([...r.headers]);throw e",
    ),
];
