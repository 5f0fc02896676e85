// Calls another worker: `env.PRICES` is bound to examples/prices in wrangler.jsonc.
export default {
  async fetch(request, { PRICES }) {
    const { searchParams } = new URL(request.url);
    if (searchParams.size === 0) return PRICES.fetch(request); // a request as it is
    using cart = await PRICES.cart(); // an object that stays over there
    try {
      for (const [item, count] of searchParams) await cart.add(item, Number(count) || 1);
    } catch (error) {
      return Response.json({ error: error.message }, { status: 400 });
    }
    return Response.json(await cart.total());
  },
};
