;; Counts the primes up to and including n with a sieve in linear memory.
;; Rebuild primes.wasm with: wat2wasm primes.wat
(module
  (memory (export "memory") 1)
  (global $max (export "max") i32 (i32.const 65535)) ;; one page, one byte per number

  (func (export "count_primes") (param $n i32) (result i32)
    (local $i i32)
    (local $j i32)
    (local $count i32)
    (if (i32.gt_u (local.get $n) (global.get $max))
      (then (unreachable)))
    ;; A second call finds the marks of the first one: wipe them.
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 65536))
    (local.set $i (i32.const 2))
    (block $done
      (loop $next
        (br_if $done (i32.gt_u (local.get $i) (local.get $n)))
        (if (i32.eqz (i32.load8_u (local.get $i)))
          (then
            (local.set $count (i32.add (local.get $count) (i32.const 1)))
            (local.set $j (i32.mul (local.get $i) (i32.const 2)))
            (block $marked
              (loop $mark
                (br_if $marked (i32.gt_u (local.get $j) (local.get $n)))
                (i32.store8 (local.get $j) (i32.const 1))
                (local.set $j (i32.add (local.get $j) (local.get $i)))
                (br $mark)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (local.get $count)))
