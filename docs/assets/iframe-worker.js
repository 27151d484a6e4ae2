// Browsers start no worker from a page that is a file; the search's runs in a hidden frame instead, behind the same calls.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      this.queue = []
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.srcdoc = `<script>
        function importScripts(...urls) {
          return urls.reduce((before, url) => before.then(() => new Promise((done, failed) => {
            const script = document.createElement("script")
            script.src = url
            script.onload = done
            script.onerror = failed
            document.body.append(script)
          })), Promise.resolve())
        }
        window.postMessage = data => parent.dispatchEvent(new MessageEvent("iframe-worker", {data, source: window}))
      </` + `script><body><script src="${url}"></` + `script></body>`
      window.addEventListener("iframe-worker", event => {
        if (event.source !== frame.contentWindow) return
        const message = new MessageEvent("message", {data: event.data})
        this.dispatchEvent(message)
        if (this.onmessage) this.onmessage(message)
      })
      frame.onload = () => {
        this.window = frame.contentWindow
        this.queue.splice(0).forEach(data => this.postMessage(data))
      }
      document.body.append(frame)
    }
    postMessage(data) {
      if (this.window) this.window.dispatchEvent(new MessageEvent("message", {data}))
      else this.queue.push(data)
    }
    terminate() {}
  }
  window.Worker = window.IFrameWorker
}
