import { RpcTarget, WorkerEntrypoint } from "cloudflare:workers";

const PRICES = { apple: 3, bread: 12, cheese: 40 };

// Lives in this worker for as long as somebody holds its stub.
class Cart extends RpcTarget {
  #lines = [];
  #discount;
  constructor(discount) {
    super();
    this.#discount = discount;
  }
  add(item, count = 1) {
    if (!Object.hasOwn(PRICES, item)) throw new RangeError(`There is no ${item}.`);
    this.#lines.push({ item, count, price: PRICES[item] * count });
  }
  total() {
    const sum = this.#lines.reduce((sum, line) => sum + line.price, 0);
    return { lines: this.#lines, total: Math.round(sum * (1 - this.#discount)) };
  }
}

export default class extends WorkerEntrypoint {
  fetch() {
    return Response.json(PRICES);
  }
  cart() {
    // What the caller's binding says; no caller can say anything else.
    return new Cart(this.ctx.props.discount ?? 0);
  }
}
