// Kept in this isolate's memory only: it is gone when the isolate is.
const runs = [];

export default {
  scheduled(controller, _env, ctx) {
    ctx.waitUntil(
      Promise.resolve().then(() => {
        runs.push({ cron: controller.cron, time: new Date(controller.scheduledTime).toISOString() });
        if (runs.length > 10) runs.shift();
        console.log(`cron ${controller.cron} ran`);
      }),
    );
  },

  fetch() {
    return Response.json({ runs });
  },
};
