// Shows: a request body piped through a transform into the answer.
// > POST /
// * 1000 hello 
export default {
  fetch(request) {
    const upper = new TransformStream({ transform: (chunk, c) => c.enqueue(chunk.toUpperCase()) });
    const body = request.body.pipeThrough(new TextDecoderStream()).pipeThrough(upper).pipeThrough(new TextEncoderStream());
    return new Response(body, { headers: { "content-type": "text/plain" } });
  },
};
